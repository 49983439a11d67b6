"""A run's folder: where it is, what it holds, how it is replaced; complete or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from errno import ENOENT
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from os import strerror
from pathlib import Path
from typing import Any

from sae_graphs._version import __version__
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import locked

# The names of the files in a run's folder, and in the folder of its validation.
RECORD = "run.json"
GRAPH = "graph.json"
TRACE = "trace.json"
TRACES = "traces.json"  # of many prompts
EDIT = "edit.safetensors"
EDITS = "edits.json"  # of many facts
PLACES = "places.json"  # of facts written everywhere
GRANGER = "granger.json"
ATLAS = "atlas.json"
EFFECTS = "effects.safetensors"
ANNOTATIONS = "annotations.json"
PAGE = "graph.html"
VALIDATION = "validation"  # the folder that `sae-graphs validate` writes into a run's
REPORT = "validation.html"

# What a folder holds that has one of these files.
KINDS = {
    GRAPH: "a graph",
    TRACE: "a trace",
    TRACES: "traces",
    EDIT: "an edit",
    EDITS: "edits of many facts",
    PLACES: "edits everywhere",
    GRANGER: "Granger tests",
    ATLAS: "an atlas",
}
LOCK = ".sae-graphs.lock"  # beside the folders of runs, while one is replaced
OF_RUN = ("prompt", "model", "saes_given", "sae_pattern_given")
_LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "networkx", "pygraphviz")


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


def check_of_one_kind(folder: Path, mine: str) -> None:
    """Fail where a run of another kind lies in the folder, which one that writes `mine` replaces.

    `mine` is one of `KINDS`. Whatever was written by the same kind may be replaced.
    """
    for name, what in KINDS.items():
        if name != mine and (folder / name).is_file():
            raise SaeGraphsError(
                f"{folder} holds {what}, which this run would replace with {KINDS[mine]}; give "
                "another folder with --out"
            )


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
    """Other runs that write into this folder wait; `FileNotFoundError` where there is none."""
    if not folder.is_dir():
        raise FileNotFoundError(ENOENT, strerror(ENOENT), str(folder))
    with locked(folder / LOCK, wait=True):
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """No other run measures for this folder meanwhile; raises `SaeGraphsError` where one does."""
    from filelock import Timeout

    folder = folder.absolute()
    new = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        held.callback(_remove_empty, new)
        try:
            held.enter_context(locked(folder.with_name(f".{folder.name}.lock"), wait=False))
        except Timeout as problem:
            raise SaeGraphsError(
                f"another run is writing into {folder}; wait until it is done, or give another "
                "folder with --out"
            ) from problem
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, that a run that failed left empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def folder_for(
    root: Path,
    prompt: str,
    model: str,
    saes: str | None,
    sae_pattern: str | None = None,
    *,
    save_effects: bool = False,
    ending: str = "",
) -> Path:
    """`outputs/copyright-c` for "Copyright (C"; a suffix keeps other prompts' folders apart.

    And those with saved effects from a run that does not save its own, which would delete them.
    `ending` is put behind the name, of another kind of run.
    """
    slug = slug_of(prompt, model) + ending
    mine = [prompt, model, saes, sae_pattern]
    digest = hashlib.sha256(json.dumps(mine).encode()).hexdigest()[:6]
    numbered = (f"{slug}-{digest}-{number}" for number in itertools.count(2))

    def free(folder: Path) -> bool:
        held = record_of(folder)
        if held and [held.get(name) for name in OF_RUN] != mine:
            return False
        return save_effects or not holds_effects(folder)

    names = itertools.chain([slug, f"{slug}-{digest}"], numbered)
    return next(root / name for name in names if free(root / name))


def slug_of(prompt: str, model: str) -> str:
    """What the folder of a prompt is called, where that name is free.

    >>> slug_of("Copyright (C", "demo"), slug_of("Copyright (C", "models/gpt2-small")
    ('copyright-c', 'gpt2-small-copyright-c')
    """
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "prompt"
    if model != "demo":
        slug = re.sub(r"[^a-z0-9.]+", "-", f"{Path(model).name}-{slug}".lower()).strip("-.")
    return slug


def replot_folder(folder: Path, changed: Mapping[str, object], *, otherwise: str = "again") -> Path:
    """`outputs/copyright-c-top-k-12` for what is drawn of `outputs/copyright-c` with `top_k` 12.

    `otherwise` is the ending where nothing is changed.
    """
    parts = [_named(name.replace("_", "-"), value) for name, value in changed.items()]
    folder = folder.resolve()
    own = folder.name if folder.is_dir() else folder.parent.name
    root = folder.parent if folder.is_dir() else folder.parent.parent
    found = root / "-".join([own, *(parts or [otherwise])])
    here = Path.cwd()
    return found.relative_to(here) if found.is_relative_to(here) else found


def _named(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}-{_slug(value)}"


def _slug(value: object) -> str:
    items = value if isinstance(value, list | tuple) else [value]
    return re.sub(r"[^A-Za-z0-9.@]+", "-", "-".join(str(item) for item in items)).strip("-")[:48]


def partial_folder(folder: Path) -> Path:
    """Where a run that will write `folder` keeps the layers that are done."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.partial")


def made_with() -> dict[str, Any]:
    """When, and with what."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sae_graphs": __version__,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def record_of(folder: Path) -> dict[str, Any] | None:
    """What `run.json` says of the run in a folder; None where there is none."""
    try:
        held = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_folder(path: Path) -> Path:
    """The folder of a run, which is given itself or by its effects or its `graph.json`."""
    named = path.name in (EFFECTS, GRAPH) and not path.is_dir()
    return path.parent if named else path


def holds_effects(folder: Path) -> bool:
    """Whether an earlier run saved its effects here."""
    return (folder / EFFECTS).is_file()
