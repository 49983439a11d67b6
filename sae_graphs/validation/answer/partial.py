"""`AnswerPartial`: units that were tested, kept in a folder until the validation is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_graphs._version import __version__
from sae_graphs.checkpoint import Checkpoint, run_key
from sae_graphs.errors import GraphFileError
from sae_graphs.files import write_atomically
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes as graph_bytes
from sae_graphs.model.instrument import weights_of
from sae_graphs.schema import plain, read_json, rebuilt
from sae_graphs.validation.answer.records import AnswerUnit
from sae_graphs.validation.answer.subject import Prepared
from sae_graphs.validation.settings import ValidationSettings

_REMEDY = "delete it"


class AnswerPartial(Checkpoint[str, AnswerUnit]):
    """The units of one validation that are done, by name; in other prompts by that, too."""

    patience = 0.0
    pattern = "*unit-*.json*"

    def file(self, name: str) -> Path:
        """Where one unit's record lies."""
        return self.folder / f"unit-{self._names.index(name)}.json"

    def key_in(self, name: str) -> str | None:
        """The key that one unit's record carries; None where it is of another unit."""
        known, key, _ = self._read(name)
        return key if known == name else None

    def load(self, name: str) -> AnswerUnit:
        """One unit's record."""
        known, _, unit = self._read(name)
        if known != name:
            raise GraphFileError(f"{self.file(name)} is not of {name}; {_REMEDY}")
        return unit

    def save(self, name: str, unit: AnswerUnit, key: str) -> None:
        """Write one unit's record."""
        data = {"run": key, "name": name, "unit": plain(unit, {FeatureId: str})}
        write_atomically(self.file(name), json.dumps(data, allow_nan=False).encode("ascii"))

    def _read(self, name: str) -> tuple[str, str, AnswerUnit]:
        file = self.file(name)
        data: Any = read_json(file, give="another folder", remedy=_REMEDY)
        texts = [data.get("name"), data.get("run")] if isinstance(data, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise GraphFileError(f"{file} is no unit of a validation; {_REMEDY}")
        own = {FeatureId: FeatureId.parse}
        unit = rebuilt(AnswerUnit, data.get("unit"), "the unit", own, remedy=_REMEDY)
        return data["name"], data["run"], unit


def answer_key(
    found: Prepared,
    graph: CausalGraph,
    settings: ValidationSettings,
    tests: Sequence[Prepared] = (),
) -> str:
    """Tells apart everything that determines what a validation finds of a unit.

    `tests` are the other prompts.
    """
    model = found.asked.model
    facts = {
        "sae_graphs": __version__,
        "graph": hashlib.sha256(graph_bytes(graph.parts)).hexdigest(),
        "tokens": list(found.asked.clean.token_ids),
        "answer": list(found.asked.answer),
        "intervention": found.intervention.name,
        "saes": [(layer.point.hook_name, str(layer.cfg.to_dict())) for layer in model.stack.layers],
        "settings": dict(settings.to_json()),
        "tests": [_facts(test) for test in tests],
    }
    return run_key(facts, weights_of(model))


def _facts(test: Prepared) -> list[object]:
    """What is ablated in another prompt, and what is asked there."""
    units = [[list(map(str, unit.features)), unit.spots, unit.is_route] for unit in test.units]
    return [test.asked.clean.token_ids, test.asked.answer, test.asked.read, units]
