"""Commands beside a service that plays Neuronpedia, without pauses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sae_graphs.cli.outputs import write_run
from sae_graphs.features.neuronpedia.client import Service
from sae_graphs.graph.addresses import address_of
from sae_graphs.graph.graph import CausalGraph
from tests.support.graphs import example
from tests.support.models import save_model_folder, save_sae_folder
from tests.support.neuronpedia_server import Neuronpedia


def hurry(patch: pytest.MonkeyPatch, **how: float) -> None:
    """Commands pause nowhere."""

    def quick() -> Service:
        return replace(MADE(), sleep=lambda _: None, **how)  # type: ignore[arg-type]

    patch.setattr(Service, "from_environment", quick)


MADE = Service.from_environment


def public_options(root: Path) -> tuple[str, ...]:
    """Options for a tiny model whose SAEs say that they are on Neuronpedia."""
    model, saes = save_model_folder(root / "model"), save_sae_folder(root / "saes")
    for number, folder in enumerate(sorted(saes.iterdir())):
        file = folder / "cfg.json"
        settings = json.loads(file.read_text())
        settings["metadata"]["neuronpedia_id"] = f"tiny/{number}-res"
        file.write_text(json.dumps(settings))
    return "--model", str(model), "--saes", str(saes), "--min-path-edges", "1"


def saved(folder: Path, formats: tuple[str, ...] = ("svg", "html", "dot")) -> Path:
    write_run(folder, example(), formats=formats, seconds=1.0)
    return folder


def knows_all(service: Neuronpedia, graph: CausalGraph) -> None:
    service.knows(*(str(at) for node in graph.nodes if (at := address_of(node)) is not None))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
