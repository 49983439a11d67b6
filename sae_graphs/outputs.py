"""What a run leaves behind: its folder under `outputs/`, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sae_graphs import __version__
from sae_graphs.files import RECORD, replace_folder
from sae_graphs.graph import CausalGraph
from sae_graphs.graph_json import FILE_NAME, to_bytes

_LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "networkx", "pygraphviz")


def folder_for(root: Path, prompt: str, model: str, saes: str | None) -> Path:
    """`outputs/copyright-c` for "Copyright (C"; a suffix keeps other prompts' folders apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "prompt"
    if model != "demo":
        slug = re.sub(r"[^a-z0-9.]+", "-", f"{Path(model).name}-{slug}".lower()).strip("-.")
    folder = root / slug
    held = _record(folder)
    mine = (prompt, model, saes)
    if held and (held.get("prompt"), held.get("model"), held.get("saes_given")) != mine:
        digest = hashlib.sha256(json.dumps([prompt, model, saes]).encode()).hexdigest()
        folder = root / f"{slug}-{digest[:6]}"
    return folder


def write_run(
    folder: Path,
    graph: CausalGraph,
    *,
    formats: Sequence[str],
    seconds: float,
    saes: str | None = None,
) -> tuple[str, ...]:
    """Draw the graph and put all files of the run in place at once; returns their names.

    `saes` is what the user asked for, None where the model's own were taken.
    """
    from sae_graphs.render import files

    written = {FILE_NAME: to_bytes(graph), **files(graph, formats)}
    names = (*written, RECORD)
    record: dict[str, Any] = {
        "prompt": graph.run.prompt,
        "model": graph.run.model,
        "saes": graph.run.saes,
        "saes_given": saes,
        "settings": dict(graph.run.settings),
        "features": sum(not node.feature.is_output for node in graph.nodes),
        "output_tokens": sum(node.feature.is_output for node in graph.nodes),
        "edges": len(graph.edges),
        "seconds": round(seconds, 4),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sae_graphs": __version__,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "files": list(names),
    }
    written[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, written)
    return names


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        held = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
