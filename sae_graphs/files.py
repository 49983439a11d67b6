"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
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


def check_writable(folder: Path) -> None:
    """Fail before the work, not after it: the folder must be new, empty, or an earlier run's."""
    parent = next((path for path in folder.absolute().parents if path.exists()), Path("/"))
    if folder.exists() and not folder.is_dir():
        raise SaeGraphsError(f"{folder} is a file; give a folder to write into")
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


def replace_folder(folder: Path, files: Mapping[str, bytes], earlier: frozenset[str]) -> None:
    """Put a whole run's files in place at once: two runs never mix, a crash leaves the old one.

    `earlier` names files of the run that was there before; whatever else the folder holds (a
    user's notes, say) is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        stage.mkdir()
        for name, data in files.items():
            (stage / name).write_bytes(data)
        while True:
            try:
                stage.replace(folder)
                break
            except OSError:
                if not folder.is_dir():
                    raise
                old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
                folder.rename(old)
        _keep_foreign(old, folder, earlier | files.keys())
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write {folder}: {problem.strerror or problem}; give another folder"
        ) from problem
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _keep_foreign(old: Path, folder: Path, ours: frozenset[str]) -> None:
    if old.is_dir():
        for path in old.iterdir():
            if path.name not in ours and not (folder / path.name).exists():
                path.rename(folder / path.name)
