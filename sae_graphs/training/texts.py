"""What is trained on: a text file, a folder of them, or a dataset, as pairs of kind and text.

In a folder, each sub-folder is a kind of text; without any, each file is, where they are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.pretrained.corpora import MOST_UNREADABLE, Corpus

READ = 2**20  # characters at once
MOST_KINDS = 12  # told apart in the evaluation


@dataclass(frozen=True)
class Texts:
    """Where the text comes from; `dataset` is a dataset's name or folder of data files."""

    source: str
    is_dataset: bool = False
    config: str | None = None
    split: str = "train"
    column: str | None = None

    def __post_init__(self) -> None:
        if self.is_dataset:
            return
        path = Path(self.source)
        if not path.exists():
            raise SaeGraphsError(
                f"no text file and no folder {self.source}; give plain text, UTF-8"
            )
        files = [file for _, file in self.files]
        if not files:
            raise SaeGraphsError(
                f"the folder {self.source} holds no files; give it some plain text"
            )
        if not sum(file.stat().st_size for file in files):
            raise SaeGraphsError(f"{self.source} is empty; give some text to train on")

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files and their kinds, in order; those whose names begin with a dot are left out."""
        path = Path(self.source)
        if path.is_file():
            return [(path.stem, path)]
        found = [at for at in sorted(path.rglob("*")) if at.is_file() and _is_seen(at, path)]
        inner = [at for at in found if at.parent != path]
        if inner:  # what lies beside the sub-folders describes them
            kinds = {at: at.relative_to(path).parts[0] for at in inner}
        else:
            kinds = {at: at.stem for at in found}
        alone = len(set(kinds.values())) > MOST_KINDS
        return [(path.name if alone else kind, at) for at, kind in kinds.items()]

    def facts(self) -> dict[str, Any]:
        """What tells this text from others, and from what it was before; a folder may move."""
        return {**self._corpus.facts(), "source": Path(self.source).name}

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Kinds and texts. Raises `SaeGraphsError` where a file is no text."""
        if self.is_dataset:
            for text in self._corpus.texts():
                yield self.source, text + "\n\n"
            return
        for kind, file in self.files:
            try:
                with file.open(encoding="utf-8-sig", errors="replace") as opened:
                    while text := opened.read(READ):
                        if text.count("\0") + text.count("\ufffd") > MOST_UNREADABLE * len(text):
                            raise SaeGraphsError(
                                f"{file} is no text in UTF-8; convert it, or leave it out"
                            )
                        yield kind, text
            except OSError as problem:
                raise SaeGraphsError(f"cannot read {file}: {problem.strerror}") from problem
            yield kind, "\n\n"

    @property
    def _corpus(self) -> Corpus:
        return Corpus(self.source, self.is_dataset, self.config, self.split, self.column)


def _is_seen(file: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(root).parts)
