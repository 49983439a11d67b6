"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sae_graphs.errors import SaeGraphsError

RECORD = "run.json"


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


def check_writable(folder: Path) -> None:
    """Fail before the work, not after it: the folder must be new, empty, or an earlier run's."""
    try:
        here = Path.cwd()
    except FileNotFoundError as problem:
        raise SaeGraphsError("the folder you are in is gone; go to another") from problem
    parent = next((path for path in folder.absolute().parents if path.exists()), Path("/"))
    if folder.exists() and not folder.is_dir():
        raise SaeGraphsError(f"{folder} is a file; give a folder to write into")
    if here.is_relative_to(folder.resolve()):
        raise SaeGraphsError(
            f"{folder} is the folder you are in, or holds it; a run replaces its whole folder, so "
            "give one of its own, such as outputs/mine"
        )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise SaeGraphsError(
            f"{folder} holds files that no run wrote; give a new folder so that nothing is lost"
        )
    probe = parent / f".{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write into {parent}: {problem.strerror}; give another folder"
        ) from problem


def replace_folder(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Put a whole run's files in place at once: two runs never mix, a failure leaves the old one.

    A file is given by what it holds, or as a file elsewhere, which stays there.
    The files of the run that was there before, which its record names, go; whatever else the
    folder holds (a user's notes, say) is kept. So it is in folders that the record names.
    """
    folder = folder.resolve()
    stage, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
        for name, data in files.items():
            if isinstance(data, Path):
                _share(data, stage / name)
            else:
                (stage / name).write_bytes(data)
        with alone_in(folder.parent):
            try:
                if folder.is_dir():
                    folder.rename(old)
                stage.replace(folder)
                _keep_foreign(old, folder)
            except BaseException:  # a full disk, or Ctrl-C: the earlier run comes back
                if old.is_dir() and not folder.is_dir():
                    old.rename(folder)
                raise
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write {folder}: {problem.strerror or problem}; give another folder"
        ) from problem
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not _foreign(old):  # else something of the user's is still there: it stays
            shutil.rmtree(old, ignore_errors=True)


def _share(file: Path, other: Path) -> None:
    """The same contents at another place, without copying where the file system allows it."""
    try:
        other.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, other)


def _keep_foreign(old: Path, folder: Path) -> None:
    """Move what no run wrote from the folder that was there before into the new one."""
    for path in _foreign(old):
        place = folder / path.relative_to(old)
        if place.exists():  # a run's file of that name is there now
            path.unlink()
            continue
        place.parent.mkdir(exist_ok=True, parents=True)
        path.rename(place)
        if place.parent != folder:
            _keep_record(path.parent / RECORD, place.parent / RECORD)


def _keep_record(old: Path, new: Path) -> None:
    """A folder left with a user's file alone is still one of exports, say: the next may use it."""
    if new.exists() or not old.is_file():
        return
    held = json.loads(old.read_text(encoding="utf-8"))
    kind = {"kind": held["kind"]} if "kind" in held else {}
    new.write_text(json.dumps({**kind, "files": []}) + "\n", encoding="utf-8")


def _foreign(folder: Path) -> list[Path]:
    """What lies in a run's folder without being a file of the run.

    A folder that the run's record names, as of its exports, has a record of its own.
    """
    if not folder.is_dir():
        return []
    ours = recorded_files(folder)
    found = []
    for path in folder.iterdir():
        if path.name not in ours:
            found.append(path)
        elif not path.is_symlink():
            found += _foreign(path)
    return found


def recorded_files(folder: Path) -> frozenset[str]:
    """The names that the record of the run in this folder lists; none where there is no record."""
    try:
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return frozenset(str(name) for name in names) | {RECORD}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset({RECORD})


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Other runs that write into this folder wait, where the system can lock folders."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder of others', where ours alone is ours
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
