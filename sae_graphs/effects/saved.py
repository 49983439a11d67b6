"""`effects.safetensors`: every effect that a run measured, to be drawn from again without a model.

For the layer at depth 3: its effects as in `tensors`; `3.ablated`, where positions are
resolved with `3.ablated_positions`, what was ablated, with effects or without; and
`3.active_positions`, `3.active_features`, `3.activations`, the clean activations that are not 0.
`described` is JSON as bytes: nodes as in `graph.json` that other choices of edges may need.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.tensors import damaged, merge_tensors, opened, read_layer, write_tensors
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.addresses import feature_url
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.node_link import node_attributes, node_from
from sae_graphs.graph.records import Node, RunRecord
from sae_graphs.runs import EFFECTS

SCHEMA = "sae_graphs/effects/1"
KEPT_SETTINGS = ("top_k", "per", "min_path_edges", "nodes", "dense")  # change no effect
COMMON = "common.safetensors"
NO_ANATOMY = "saved effects hold no anatomies, but for the edges of the run's own graph"


@dataclass(frozen=True, eq=False)
class SavedLayer:
    """One SAE layer besides its effects. `ablated_positions` is None where all are one ablation.

    Where nothing was ablated both are empty; the activations are the clean ones that are not 0.
    """

    label: str
    width: int
    neuronpedia_id: str | None
    ablated: NDArray[np.int32]
    ablated_positions: NDArray[np.int32] | None
    active_positions: NDArray[np.int32]
    active_features: NDArray[np.int32]
    activations: NDArray[np.floating]

    def of(self, index: int, n_tokens: int) -> tuple[float, ...]:
        """The clean activations of one feature at each token."""
        column = np.zeros(n_tokens, dtype=np.float64)
        here = self.active_features == index
        column[self.active_positions[here]] = self.activations[here]
        return tuple(column.tolist())


def effects_beside(path: Path) -> Path:
    """The file of effects in a run's folder, which is given itself or by its `graph.json`."""
    return (path if path.is_dir() else path.parent) / EFFECTS


def digest_of(run: RunRecord, *, before_answers: bool = False) -> str:
    """Tells runs apart by what was measured, whatever was drawn of it.

    `before_answers`, as it was written when no graph was of an answer.
    """
    answer = run.answer and dataclasses.replace(
        run.answer, coverage=None, dense=(), paths=(), stranded=()
    )
    facts = dataclasses.asdict(
        dataclasses.replace(
            run, settings={}, kept_abs_effect=0.0, warnings=(), layers=(), answer=answer
        )
    )
    if facts["answer"] is not None:
        del facts["answer"]["what_if"]  # runs from before it have none
    elif before_answers:
        del facts["answer"]
    facts["settings"] = {k: v for k, v in run.settings.items() if k not in KEPT_SETTINGS}
    facts["layers"] = [(x.label, x.hook_point, x.fvu, x.total_abs_effect) for x in run.layers]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def write_effects(
    file: Path,
    run: RunRecord,
    layers: Sequence[SavedLayer],
    described: Iterable[Node],
    parts: Sequence[Path],
) -> None:
    """Merge the layers' files, `parts` by depth, with what else a new choice of edges needs."""
    tensors = common_tensors(layers, described)
    about = about_run(SCHEMA, run, layers, len(parts))
    common = parts[0].with_name(COMMON)
    try:
        write_tensors(common, tensors, {})
        merge_tensors(file, [*parts, common], about)
        common.unlink()
    except OSError as problem:
        raise SaeGraphsError(f"cannot write {file}: {problem.strerror or problem}") from problem


def common_tensors(
    layers: Sequence[SavedLayer], described: Iterable[Node]
) -> dict[str, NDArray[Any]]:
    """All that is saved beside effects, by name."""
    tensors: dict[str, NDArray[Any]] = {}
    for depth, layer in enumerate(layers):
        for field in dataclasses.fields(layer):
            held = getattr(layer, field.name)
            if isinstance(held, np.ndarray):
                tensors[f"{depth}.{field.name}"] = np.ascontiguousarray(held)
    nodes = [{"id": str(node.feature), **node_attributes(node)} for node in described]
    tensors["described"] = json_tensor(nodes)
    return tensors


def json_tensor(value: Any) -> NDArray[np.uint8]:
    """JSON as bytes."""
    return np.frombuffer(json.dumps(value).encode("ascii"), dtype=np.uint8)


def about_run(
    schema: str, run: RunRecord, layers: Sequence[SavedLayer], pairs: int
) -> dict[str, str]:
    """What a file of effects says of itself: those of so many layers, of this run."""
    return {
        "schema": schema,
        "run": digest_of(run),
        "layers": json.dumps([(x.label, x.width, x.neuronpedia_id) for x in layers]),
        "pairs": str(pairs),
    }


class SavedEffects:
    """The effects of a run, read layer by layer when they are asked for.

    Raises `GraphFileError` where the file is missing, damaged or another run's.
    """

    schema = SCHEMA

    def __init__(self, folder: str | Path, run: RunRecord) -> None:
        self.file = effects_beside(Path(folder))
        if not self.file.is_file():
            raise GraphFileError(
                f"no {EFFECTS} in {self.file.parent}; make that graph again with --save-effects"
            )
        self._n_tokens = len(run.tokens)
        with opened(self.file) as held:
            about = held.metadata() or {}
            if about.get("schema") != self.schema:
                raise GraphFileError(
                    f"{self.file}: schema is {about.get('schema')!r}, expected {self.schema!r}; "
                    "make the graph again with --save-effects"
                )
            if about.get("run") not in (digest_of(run), digest_of(run, before_answers=True)):
                raise GraphFileError(
                    f"{self.file} belongs to another run than the graph beside it; make the graph "
                    "again with --save-effects"
                )
            self._about = [tuple(item) for item in json.loads(about["layers"])]
            self._pairs = int(about["pairs"])
        self.labels = tuple(str(label) for label, _, _ in self._about)
        self.neuronpedia_ids = {str(label): known for label, _, known in self._about}
        if self.labels != tuple(layer.label for layer in run.layers):
            raise damaged(self.file, "its layers are not those of the graph")
        self._outputs = 1 + max((output.token_id for output in run.outputs), default=-1)

    @property
    def n_pairs(self) -> int:
        """How many layers were ablated."""
        return self._pairs

    def blocks(self, depths: Iterable[int] | None = None) -> Iterator[Effects]:
        """The effects of some layers, by default all, in the blocks that were measured."""
        for depth in range(self._pairs) if depths is None else depths:
            yield from read_layer(self.file, depth, (self._width(depth), self._targets(depth)))

    def _width(self, depth: int) -> int:
        """How many features a layer has."""
        return int(self._about[depth][1])

    def _targets(self, depth: int) -> int:
        """How many targets a layer's effects may have: features of the next, or output tokens."""
        return self._width(depth + 1) if depth + 1 < len(self._about) else self._outputs

    @cached_property
    def layers(self) -> tuple[SavedLayer, ...]:
        """What else is known of each layer."""
        found = []
        with opened(self.file) as held:
            names = set(held.keys())
            for depth, about in enumerate(self._about):
                tensors = {
                    field.name: held.get_tensor(f"{depth}.{field.name}")
                    for field in dataclasses.fields(SavedLayer)
                    if f"{depth}.{field.name}" in names
                }
                tensors.setdefault("ablated_positions", None)
                layer = SavedLayer(*about, **tensors)
                _check_layer(layer, self._n_tokens)
                found.append(layer)
        return tuple(found)

    @cached_property
    def described(self) -> Mapping[FeatureId, Node]:
        """Features with their contexts and tokens: those of the run's graph, and more."""
        with opened(self.file) as held:
            text = held.get_tensor("described").tobytes()
            try:
                nodes = [node_from(item["id"], item) for item in json.loads(text)]
            except (AttributeError, SaeGraphsError) as problem:
                raise ValueError(str(problem)) from problem
        return {node.feature: node for node in nodes}

    def plain_node(self, feature: FeatureId, read: int) -> Node:
        """A feature with its clean activations and its page, and nothing else."""
        layer = self.layers[self.labels.index(feature.layer)]
        activations = layer.of(feature.index, self._n_tokens)
        return Node(
            feature=feature,
            activation=activations[read if feature.position is None else feature.position],
            activations=activations,
            neuronpedia=feature_url(layer.neuronpedia_id, feature.index),
        )


def _check_layer(layer: SavedLayer, n_tokens: int) -> None:
    entries = (layer.active_positions, layer.active_features, layer.activations)
    if len({held.shape for held in entries}) != 1 or layer.activations.dtype.kind != "f":
        raise ValueError(f"the activations of layer {layer.label} do not fit each other")
    for held, limit in ((layer.active_positions, n_tokens), (layer.active_features, layer.width)):
        if held.dtype != np.int32 or (len(held) and not 0 <= held.min() <= held.max() < limit):
            raise ValueError(f"the activations of layer {layer.label} are outside the layer")
    if not np.isfinite(layer.activations).all():
        raise ValueError(f"an activation of layer {layer.label} is not finite")
