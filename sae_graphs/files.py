"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import uuid
from pathlib import Path

from sae_graphs.errors import SaeGraphsError


def write_atomically(file: Path, data: bytes) -> None:
    """Write beside the file, then rename over it; makes the folder. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(data)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def save_at(path: str | Path, name: str, data: bytes) -> Path:
    """Write to a file, or under a name into a folder, in one step; returns the file.

    A path without a suffix is a folder's. Raises `SaeGraphsError` where it cannot be written.
    """
    file = Path(path)
    if file.is_dir() or not file.suffix:
        file = file / name
    try:
        write_atomically(file, data)
    except OSError as problem:
        raise SaeGraphsError(f"cannot write {file}: {problem.strerror}") from problem
    return file
