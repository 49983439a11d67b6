"""The exports of a run: `exports/` in its folder, and their place in its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sae_graphs._version import __version__
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.runs import GRAPH, RECORD, check_writable, record_of, replace_folder

NAME = "exports"
KIND = "exports"  # what such a folder's record says that it is


def exports_folder(run: Path, given: Path | None) -> Path:
    """Where the exports of a run, or of a saved graph, go; `given` is what the user asked for.

    Raises `SaeGraphsError` where they would replace something else: a folder that is not empty
    must hold exports.
    """
    folder = given
    if folder is None and (run.is_dir() or run.name == GRAPH):
        folder = (run if run.is_dir() else run.parent) / NAME
    folder = folder or run.with_name(f"{run.stem}-{NAME}")
    if (folder / GRAPH).is_file():
        raise SaeGraphsError(
            f"{folder} holds a graph, which the exports would replace; give another folder"
        )
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and (record_of(folder) or {}).get("kind") != KIND:
        raise SaeGraphsError(
            f"{folder} holds what another command wrote, which the exports would replace; give "
            "another folder"
        )
    return folder


def write_exports(folder: Path, files: Mapping[str, bytes], graph: CausalGraph) -> tuple[str, ...]:
    """Put all exports in place at once, and into the record of the run that they belong to.

    Exports that were there before go. Returns the names, that of their record included.
    """
    names = (*files, RECORD)
    record = {
        "kind": KIND,
        "prompt": graph.run.prompt,
        "model": graph.run.model,
        "saes": graph.run.saes,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sae_graphs": __version__,
        "files": list(names),
    }
    replace_folder(folder, {**files, RECORD: _json(record)})
    run = folder.resolve().parent
    held = record_of(run)
    if held is not None and isinstance(held.get("files"), list) and (run / GRAPH).is_file():
        # a new graph in this place is another one, and takes the old one's exports away
        listed = [*(name for name in held["files"] if name != folder.name), folder.name]
        write_atomically(run / RECORD, _json({**held, "files": listed}))
    return names


def _json(record: Mapping[str, object]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
