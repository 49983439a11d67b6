"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sae_graphs.errors import ModelLoadError, SaeGraphsError

log = logging.getLogger(__name__)

BUNDLED_TEXTS = "texts.json"  # beside the bundled model: documents, a list of strings


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


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """No other process holds this lock meanwhile, where the system can lock files.

    Raises `filelock.Timeout` where one holds it and this is not to `wait`. The lock's file is gone
    afterwards, and what a process that was killed leaves of it does not count.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as problem:  # a folder of others', or no locks here
        log.info("cannot lock %s: %s", file, problem)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows
            file.unlink()  # while it is held: later it may be another's, who then tries again
        lock.release()


def bundled_folder() -> Path:
    """Where the bundled model lies: inside an installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package / "autoencoders" / "demo", package.parent / "autoencoders" / "demo"):
        if (folder / "model" / "config.json").is_file():
            return folder
    raise ModelLoadError(
        "the bundled model is missing; install the package again, or rebuild it with "
        "`python -m training.demo train`"
    )
