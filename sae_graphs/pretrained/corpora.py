"""Texts from a file, or from a dataset by name, one after the other; prompts from a file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError, quoted

PIECE = 2**16  # characters of a line that are read at once: a file may be one line
SAMPLE = 2**20  # bytes at the ends of a file that tell it from others
LOOKED_AT = 2**18  # characters of a corpus before it is used
MOST_UNREADABLE = 0.05  # of them: NUL, or bytes that are no UTF-8
FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}


@dataclass(frozen=True)
class Corpus:
    """Where texts come from: a text file, or a dataset.

    A dataset is named as on the Hugging Face hub, or is a folder of data files (or one such file);
    `config`, `split` and `column` choose a part of it. Without a `column` it is the one called
    `text`, else the first that holds text.
    """

    source: str
    is_dataset: bool = True
    config: str | None = None
    split: str = "train"
    column: str | None = None

    def texts(self) -> Iterator[str]:
        """The lines of the file, or the texts of the dataset, streamed.

        A row without a text counts as an empty one. Raises `SaeGraphsError` where it cannot be
        read.
        """
        return _dataset(self) if self.is_dataset else _lines(Path(self.source))

    @property
    def size(self) -> int | None:
        """Bytes of a text file; of a dataset it is not known."""
        return None if self.is_dataset else Path(self.source).stat().st_size

    def facts(self) -> Mapping[str, Any]:
        """Plain values that tell this corpus from others, and from what it was before."""
        path = Path(self.source)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found = [[file.name, *_sample(file)] for file in files if file.is_file()]
        return {**asdict(self), "files": found}


def texts_of(source: str) -> Iterator[str]:
    """The texts of a text file, or of a dataset by its name: see `Corpus`."""
    return Corpus(source, is_dataset=not Path(source).is_file()).texts()


def prompts_of(file: Path) -> tuple[str, ...]:
    """The lines of a file of prompts, empty ones left out."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise SaeGraphsError(
            f"cannot read prompts from {file}: {getattr(problem, 'strerror', None) or problem}; "
            "give a UTF-8 text file with one prompt a line"
        ) from problem
    prompts = tuple(line for line in lines if line.strip())
    if not prompts:
        raise SaeGraphsError(f"{file} holds no prompts; expected one prompt a line")
    return prompts


def check_corpus(corpus: Corpus) -> None:
    """Raise `SaeGraphsError` where the beginning of a corpus is no text, or shows nothing."""
    read = unreadable = seen = 0
    visible = False
    for text in corpus.texts():
        read += 1
        seen += len(text)
        unreadable += text.count("\0") + text.count("\ufffd")
        visible = visible or any(char.isprintable() and not char.isspace() for char in text)
        if seen + read > LOOKED_AT:  # texts may be empty, without end
            break
    if read == 0:
        raise SaeGraphsError(
            f"{corpus.source} is empty; give some text to find contexts in, with --text or "
            "--dataset"
        )
    if unreadable > MOST_UNREADABLE * seen:
        raise SaeGraphsError(
            f"{corpus.source} is no text in UTF-8: {unreadable / seen:.0%} of its first characters "
            "are NUL or cannot be read; give plain text, converted to UTF-8 where it is not"
        )
    if not visible:
        raise SaeGraphsError(
            f"{corpus.source} shows no visible character in what was read of it; give some text to "
            "find contexts in"
        )


# -- inside ----------------------------------------------------------------------------------------


def _sample(file: Path) -> tuple[int, str]:
    """A file's size, and a few letters that stand for its first and last bytes."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            digest = hashlib.sha256(opened.read(SAMPLE))
            opened.seek(max(size - SAMPLE, 0))
            digest.update(opened.read(SAMPLE))
    except OSError as problem:
        raise SaeGraphsError(f"cannot read {file}: {problem.strerror or problem}") from problem
    return size, digest.hexdigest()[:16]


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            while line := file.readline(PIECE):
                yield line
    except OSError as problem:
        raise SaeGraphsError(f"cannot read {path}: {problem.strerror or problem}") from problem


def _dataset(corpus: Corpus) -> Iterator[str]:
    column = corpus.column
    try:
        for row in _rows(corpus):
            column = column or _column_of_texts(row, corpus)
            yield _text(row, column, corpus)
    except SaeGraphsError:
        raise
    except Exception as problem:  # the library raises many kinds, for no network as for no name
        raise SaeGraphsError(_why(corpus, problem)) from problem


def _rows(corpus: Corpus) -> Iterator[Mapping[str, Any]]:
    from datasets import load_dataset  # slow to import, and rarely needed

    for name in ("huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)  # one line is said, in `_why`
    options: dict[str, Any] = {"split": corpus.split, "streaming": True}
    path = Path(corpus.source)
    if path.is_file():
        kind = FILES.get(path.suffix.lower(), "text")
        rows = load_dataset(kind, data_files=str(path), **options)
    else:
        if corpus.config is not None:
            options["name"] = corpus.config
        rows = load_dataset(corpus.source, **options)
    found: Iterator[Mapping[str, Any]] = iter(rows)
    return found


def _column_of_texts(row: Mapping[str, Any], corpus: Corpus) -> str:
    if "text" in row:
        return "text"
    found = next((name for name, value in row.items() if isinstance(value, str)), None)
    if found is None:
        raise SaeGraphsError(
            f"the dataset {corpus.source} has no column of texts; its columns are {_columns(row)}"
        )
    return found


def _text(row: Mapping[str, Any], column: str, corpus: Corpus) -> str:
    if column not in row:
        raise SaeGraphsError(
            f"the dataset {corpus.source} has no column {column!r}; choose from {_columns(row)} "
            "with --column"
        )
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise SaeGraphsError(
            f"column {column!r} of the dataset {corpus.source} holds {type(text).__name__}, not "
            f"text; choose from {_columns(row)} with --column"
        )
    return text or ""


def _columns(row: Mapping[str, Any]) -> str:
    return quoted(map(repr, row), 20)


def _why(corpus: Corpus, problem: Exception) -> str:
    """One line: what was asked for, what stood in the way, what to do."""
    name = corpus.source
    shown = "".join(char if char.isprintable() else " " for char in str(problem))
    said = " ".join(shown.split())[:200] or type(problem).__name__
    if "gated" in said or "authenticated" in said:
        return (
            f"the dataset {name!r} is gated ({said}); accept its terms on the hub, and give your "
            "token with `hf auth login` or HF_TOKEN"
        )
    if isinstance(problem, ConnectionError) or "OfflineMode" in said:
        return (
            f"{name!r} is no text file and no folder here, and the hub cannot be reached "
            f"({said}); give a text file or a folder of data files, or connect to the network "
            "without HF_HUB_OFFLINE"
        )
    if isinstance(problem, ValueError) and "split" in said:
        return f"the dataset {name!r} has no split {corpus.split!r} ({said}); give another --split"
    if isinstance(problem, ValueError) and "onfig" in said:
        return f"the dataset {name!r} needs one of its configurations ({said}); give it by --config"
    return (
        f"{name!r} is no text file, and no dataset could be read by that name ({said}); give a "
        "text file, a folder of data files, or a dataset's name as on the hub"
    )
