"""`effects.safetensors` of an answer graph: other nodes and edges without the model.

For the layer at depth 3: its effects on the answer as in `tensors`, the answer being the target;
`3.density` and `3.dense` of what was ablated; and what files of effects have of each layer. Then,
of the strongest features at tokens and what may relay them, in double precision: `spots`, `[U, 3]`
depth, feature and position; `effects` and `direct_effects` `[U]`; `relays` `[U]`, -1 where there is
none; and of the edges between them that may be drawn `edges`, `[E, 2]`, what the target's
activation is `edges.before` and `edges.after` the source's ablation, and `edges.flow`. `known` and
`described` are JSON as bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.answer.circuit import Change, Spot
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.saved import (
    SavedEffects,
    SavedLayer,
    about_run,
    common_tensors,
    json_tensor,
)
from sae_graphs.effects.tensors import damaged, opened, write_tensors
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.answer import AnswerPath, Coverage, FoldedFeature
from sae_graphs.graph.records import Node, RunRecord
from sae_graphs.graph.what_if import WhatIf
from sae_graphs.schema import plain, rebuilt

SCHEMA = "sae_graphs/answer-effects/1"


@dataclass(frozen=True)
class Own:
    """What holds for the run's own choice of nodes and edges alone."""

    top_k: int
    kept: tuple[str, ...]
    coverage: Coverage
    paths: tuple[AnswerPath, ...]
    what_if: WhatIf | None = None  # of what it draws


@dataclass(frozen=True)
class Known:
    """Which of the `spots` may be kept, strongest first, `most` at once; and of the run.

    `rare` are those that are rarely on, `every` all; `pinned` are kept in any case. `dense` are the
    strongest of the dense ones, `warnings` those of any choice.
    """

    most: int
    rare: tuple[int, ...]
    every: tuple[int, ...]
    pinned: tuple[int, ...]
    dense: tuple[FoldedFeature, ...]
    warnings: tuple[str, ...]
    own: Own


def write_answer(
    file: Path,
    run: RunRecord,
    layers: Sequence[SavedLayer],
    described: Iterable[Node],
    tensors: Mapping[str, NDArray[Any]],
    known: Known,
) -> None:
    """Write all of it in one step; raises `SaeGraphsError` where that fails."""
    held = {**common_tensors(layers, described), **tensors, "known": json_tensor(plain(known))}
    try:
        write_tensors(file, held, about_run(SCHEMA, run, layers, len(layers)))
    except OSError as problem:
        raise SaeGraphsError(f"cannot write {file}: {problem.strerror or problem}") from problem


class SavedAnswer(SavedEffects):
    """What a run saved of its answer graph: `circuit`'s facts, read from the file.

    Raises `GraphFileError` where the file is missing, damaged or another run's.
    """

    schema = SCHEMA

    def __init__(self, folder: str | Path, run: RunRecord) -> None:
        super().__init__(folder, run)
        self._read_at = run.read_position
        with opened(self.file) as held:
            tensors = {name: held.get_tensor(name) for name in _columns(held.keys())}
            self.known = _known(held.get_tensor("known"), self.file)
        self._check(tensors)
        self._spots = [Spot(*row) for row in tensors["spots"].tolist()]
        columns = [tensors[name].tolist() for name in ("effects", "direct_effects", "relays")]
        self._of = dict(zip(self._spots, zip(*columns, strict=True), strict=True))
        ends = [(self._spots[a], self._spots[b]) for a, b in tensors["edges"].tolist()]
        columns = [tensors[f"edges.{name}"].tolist() for name in ("before", "after", "flow")]
        self._edges = dict(zip(ends, zip(*columns, strict=True), strict=True))

    def kept(self, nodes: int, *, dense: bool) -> list[Spot]:
        """So many of the strongest features at tokens, and those that are pinned."""
        strongest = self.known.every if dense else self.known.rare
        return [self._spots[n] for n in dict.fromkeys((*strongest[:nodes], *self.known.pinned))]

    def on_answer(self, depth: int, *, dense: bool) -> Iterator[Effects]:
        """All effects of a layer on the answer, those of `dense` features among them or not."""
        ablated = self.layers[depth].ablated
        with opened(self.file) as held:
            is_dense = held.get_tensor(f"{depth}.dense").astype(bool)
        if is_dense.shape != ablated.shape:
            raise damaged(self.file, "what is dense does not fit what was ablated")
        for block in self.blocks([depth]):
            yield block if dense else block.chosen(~np.isin(block.sources, ablated[is_dense]))

    # -- the facts ---------------------------------------------------------------------------------

    def look(self, spots: Iterable[Spot]) -> None:
        """All that may be asked was measured."""

    def effect(self, spot: Spot) -> float:
        """The effect on the answer, in nats."""
        return float(self._of[spot][0])

    def direct_effect(self, spot: Spot) -> float:
        """The part of it that no feature of a later SAE layer carries."""
        return float(self._of[spot][1])

    def at_the_end(self, spot: Spot) -> bool:
        """Whether it is one of the last SAE layer, at the answer's token."""
        return spot.depth == len(self.labels) - 1 and spot.position == self._read_at

    def change(self, source: Spot, target: Spot) -> Change:
        """What the source's ablation makes of the target's activation; 1 and 1 if next to nothing.

        Edges that are too weak to be drawn are not in the file.
        """
        before, after, _ = self._edges.get((source, target), (1.0, 1.0, 0.0))
        return Change(before, after)

    def flows(self, pairs: Sequence[tuple[Spot, Spot]]) -> list[float]:
        """What each source does to the answer through the target alone, in nats."""
        return [float(self._edges[pair][2]) for pair in pairs]

    def relay(self, spot: Spot) -> Spot | None:
        """The feature of the next layer through which most of its effect on the answer flows."""
        number = self._of[spot][2]
        return None if number < 0 else self._spots[number]

    # -- inside ------------------------------------------------------------------------------------

    def _targets(self, depth: int) -> int:
        return self._outputs

    def _check(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Raise where what is read does not fit together."""
        spots, edges, known = tensors["spots"], tensors["edges"], self.known
        n = len(spots)
        alike = {"effects": n, "direct_effects": n, "relays": n}
        alike |= {f"edges.{name}": len(edges) for name in ("before", "after", "flow")}
        numbers = [*known.rare, *known.every, *known.pinned, *edges.reshape(-1).tolist()]
        fits = (
            spots.shape == (n, 3)
            and edges.shape == (len(edges), 2)
            and all(tensors[name].shape == (size,) for name, size in alike.items())
            and all(np.isfinite(tensors[name]).all() for name in alike)
            and all(0 <= number < n for number in numbers)
            and all(-1 <= number < n for number in tensors["relays"].tolist())
            and all(self._holds(Spot(*row)) for row in spots.tolist())
        )
        if not fits:
            raise damaged(self.file, "its features at tokens do not fit each other")

    def _holds(self, spot: Spot) -> bool:
        depth, feature, position = spot
        inside = 0 <= depth < len(self.labels) and 0 <= position < self._n_tokens
        return inside and 0 <= feature < self._width(depth)


_NAMES = ("spots", "effects", "direct_effects", "relays", "edges")


def _columns(names: Iterable[str]) -> list[str]:
    return [*_NAMES, *(name for name in names if name.startswith("edges."))]


def _known(held: NDArray[Any], file: Path) -> Known:
    found: Known = rebuilt(
        Known, json.loads(held.tobytes()), f"{file}: known", remedy="make the graph again"
    )
    return found
