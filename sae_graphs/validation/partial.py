"""`ValidationPartial`: paths that were tested, kept in a folder until the validation is done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sae_graphs._version import __version__
from sae_graphs.checkpoint import Checkpoint, run_key
from sae_graphs.errors import GraphFileError
from sae_graphs.files import write_atomically
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes as graph_bytes
from sae_graphs.model.instrument import InstrumentedModel, weights_of
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.evidence_json import load, to_bytes
from sae_graphs.validation.settings import ValidationSettings


class ValidationPartial(Checkpoint[str, UnitReport]):
    """The paths of one validation that are done, by name. Testing one takes long: none waits."""

    patience = 0.0
    pattern = "*path-*.json*"

    def file(self, name: str) -> Path:
        """Where one path's report lies."""
        return self.folder / f"path-{self._names.index(name)}.json"

    def key_in(self, name: str) -> str | None:
        """The key that one path's report carries; None where it is of another path."""
        held = load(self.file(name))
        key = held.settings.get("run")
        return key if [unit.name for unit in held.units] == [name] else None

    def load(self, name: str) -> UnitReport:
        """One path's report."""
        units = load(self.file(name)).units
        if [unit.name for unit in units] != [name]:
            raise GraphFileError(f"{self.file(name)} is not a report of {name}; delete it")
        return units[0]

    def save(self, name: str, unit: UnitReport, key: str) -> None:
        """Write one path's report."""
        report = ValidationReport(
            model="",
            saes="",
            prompt="",
            target="",
            contrast=None,
            discovery=(),
            test=(),
            settings={"run": key},
            units=(unit,),
        )
        write_atomically(self.file(name), to_bytes(report))


def validation_key(
    model: InstrumentedModel,
    graph: CausalGraph,
    tokens: Sequence[Sequence[int]],
    settings: ValidationSettings,
) -> str:
    """Tells apart everything that determines what a validation finds of a path."""
    facts = {
        "sae_graphs": __version__,
        "graph": hashlib.sha256(graph_bytes(graph.parts)).hexdigest(),
        "tokens": [list(ids) for ids in tokens],
        "saes": [(layer.point.hook_name, str(layer.cfg.to_dict())) for layer in model.stack.layers],
        "settings": dict(settings.to_json()),
    }
    return run_key(facts, weights_of(model))
