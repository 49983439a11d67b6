"""Texts from a file, or from a dataset by name, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sae_graphs.errors import SaeGraphsError


def texts_of(source: str) -> Iterator[str]:
    """The lines of a text file, or the texts of a Hugging Face dataset, streamed.

    A dataset is named as on the hub, or is a folder of data files. Raises `SaeGraphsError` where
    there is neither.
    """
    path = Path(source)
    if path.is_file():
        return _lines(path)
    return _dataset(source)


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


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as problem:
        raise SaeGraphsError(f"cannot read {path}: {problem.strerror or problem}") from problem


def _dataset(name: str) -> Iterator[str]:
    try:
        import logging

        from datasets import load_dataset  # slow to import, and rarely needed

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one line is said, below

        rows = load_dataset(name, split="train", streaming=True)
        for row in rows:
            text = row.get("text") or next((v for v in row.values() if isinstance(v, str)), None)
            if text is None:
                raise SaeGraphsError(f"the dataset {name} has no column of texts")
            yield text
    except SaeGraphsError:
        raise
    except (
        Exception
    ) as problem:  # the library raises many kinds, for no network as for no such name
        reason = str(problem).strip().splitlines()[:1]
        raise SaeGraphsError(
            f"{name!r} is no text file, and no dataset could be read by that name "
            f"({reason[0] if reason else type(problem).__name__}); give a text file"
        ) from problem
