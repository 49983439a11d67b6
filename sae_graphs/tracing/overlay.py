"""A trace beside the answer graph of the same prompt: do they speak of the same places? Torch-free.

A feature of an SAE on the input of block `l` stands in cell `l` of the trace's states, as does one
on the output of the block before; what is inside a block, or after the last, has no cell. What a
feature contributes is the answer's score minus that with the feature alone ablated at its token, in
nats: above 0 it supports the answer. Letters: `T` tokens, `L` layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.stream import StreamPoint
from sae_graphs.significance import p_value, rank_correlation, unit_ranks
from sae_graphs.tracing.reading import LEAST, Drawn, restored_runs
from sae_graphs.tracing.records import Trace
from sae_graphs.words import amount, counted, percent, said
from sae_graphs.words import p_value as p_words

PERMUTATIONS = 2000
FEWEST = 6  # cells that are compared, for a correlation


class Placed(NamedTuple):
    """A feature at a token, in its cell, and what it contributes to the answer, in nats."""

    token: int
    layer: int
    contribution: float


@dataclass(frozen=True, eq=False)
class Overlay:
    """What restoring the state restores, and what features contribute there: `[T, L]` each.

    `restored` is a share of what was lost, in log-odds; `contributed` the sum of |contribution|
    over features, in nats, not a number where there is no SAE. `kept` are the graph's own features.
    `measured` is how many features at tokens `contributed` is made of, where all that were measured
    were saved, None where it is made of the graph's own.

    `compared` are the cells that both speak of. `correlation` is that of their ranks; `p` how often
    the graph's tokens in another order, its layers turned around, agree as well. `without_read` is
    the correlation without the read token, at which both must rise with the layers. None where it
    is undefined. `inside` is the share of what features contribute to cells compared that stands
    where a tenth or more is restored, `inside_cells` the share of cells that do it.
    """

    restored: Drawn
    contributed: Drawn
    compared: NDArray[np.bool_]
    kept: tuple[Placed, ...]
    measured: int | None
    correlation: float | None
    p: float | None
    without_read: float | None
    inside: float | None
    inside_cells: float

    @property
    def words(self) -> str:
        """How well they agree."""
        cells = counted(int(self.compared.sum()), "cell")
        if self.correlation is None:
            return f"rank correlation undefined over {cells}"
        told = (
            f"rank correlation {amount(self.correlation)} over {cells}, p {p_words(self.p)} "
            "against tokens in another order and layers turned around"
        )
        if self.without_read is not None:
            told += f"; without the read token {amount(self.without_read)}"
        if self.inside is not None:
            told += (
                f". {percent(self.inside)} of what features contribute there stands in the "
                f"{percent(self.inside_cells)} of cells that restore a tenth or more"
            )
        return told

    @property
    def sentence(self) -> str:
        """The same, with a capital letter and what features they are."""
        return f"Of {self.about}: {self.words}"

    @property
    def numbers(self) -> dict[str, float | int | None]:
        """What a run's record keeps of it."""
        names = ("correlation", "p", "without_read", "inside", "inside_cells", "measured")
        found = {name: getattr(self, name) for name in names}
        return {**found, "cells": int(self.compared.sum()), "kept": len(self.kept)}

    @property
    def about(self) -> str:
        """Which features they are."""
        if self.measured is None:
            return f"the graph's {counted(len(self.kept), 'feature')}"
        return counted(self.measured, "measured feature")


def overlay_of(
    trace: Trace, graph: CausalGraph, *, effects: str | Path | None = None, seed: int = 0
) -> Overlay:
    """What a trace and the answer graph of the same prompt say of the same tokens and layers.

    With the folder of a run that saved its `effects`, every feature that was measured counts, the
    dense ones aside unless the graph has these; else those that the graph keeps, relays included.
    Cells that nothing can be restored in are left out: what stands before the subject, and, in the
    first layer, beside it. So is the first token, at which no feature is ablated.

    Raises `SaeGraphsError` where the two are not of one model, prompt and answer, or where the
    corruption took nothing.
    """
    check_same(trace, graph)
    cells = _cells(trace, graph)
    kept = tuple(_kept(graph, cells))
    found = kept if effects is None else tuple(_measured(graph, effects, cells))
    contributed = np.full((len(trace.tokens), trace.n_layers), np.nan)
    contributed[:, sorted(set(cells.values()))] = 0.0
    for each in found:
        contributed[each.token, each.layer] += abs(each.contribution)
    restored = restored_runs(trace, "state").mean(axis=0)
    compared = _compared(trace) & np.isfinite(contributed)
    correlation, p = _agreement(restored, contributed, compared, seed)
    restores = compared & (restored >= LEAST)
    whole = contributed[compared].sum()
    above = compared.copy()
    above[trace.read] = False
    return Overlay(
        restored=restored,
        contributed=contributed,
        compared=compared,
        kept=kept,
        measured=None if effects is None else len(found),
        correlation=correlation,
        p=p,
        without_read=rank_correlation(restored[above], contributed[above], fewest=FEWEST),
        inside=None if not whole else float(contributed[restores].sum() / whole),
        inside_cells=float(restores.sum() / max(compared.sum(), 1)),
    )


def check_same(trace: Trace, graph: CausalGraph) -> None:
    """Raise `SaeGraphsError` unless both are of one model, prompt and answer."""
    check_answers(graph)
    check_model(trace.model, graph)
    run = graph.run
    if trace.tokens != run.tokens:
        ours, theirs = len(trace.tokens), len(run.tokens)
        raise SaeGraphsError(
            f"the graph has other tokens ({theirs}) than the trace ({ours}); give two of one "
            "prompt, both with BOS or both without (--prepend-bos)"
        )
    if trace.read != run.read_position:
        raise SaeGraphsError(
            f"the graph is read at token {run.read_position}, the trace at token {trace.read}; "
            "read both at the same"
        )
    answer = run.outputs[0]
    if trace.target_ids != (answer.token_id,):
        told = " or ".join(map(said, trace.targets))
        raise SaeGraphsError(
            f"the graph's answer is {said(answer.token)}, the trace's {told}; name the same target"
        )


def check_model(name: str, graph: CausalGraph) -> None:
    """Raise `SaeGraphsError` unless the graph is of the model of that name."""
    if name != graph.run.model:
        raise SaeGraphsError(
            f"the graph is of the model {said(graph.run.model)}, the trace of {said(name)}; give "
            "the graph's (--model)"
        )


def check_answers(graph: CausalGraph) -> None:
    """Raise `SaeGraphsError` unless it is an answer graph with token positions."""
    if not isinstance(graph, CausalGraph):
        raise SaeGraphsError(f"{graph!r:.60} is no graph; load a saved one with CausalGraph.load")
    if graph.run.answer is None:
        raise SaeGraphsError(
            "the graph is one of effects, which says nothing of the answer; make an answer graph "
            "(--select answer)"
        )
    if graph.run.outputs[0].contrast is not None:
        raise SaeGraphsError(
            "the graph is of a difference of two logits, the trace of one answer; make the graph "
            "without --contrast"
        )
    if graph.run.summed_at is not None:
        raise SaeGraphsError("the graph is summed over tokens; give the one that it was made from")


# -- places ----------------------------------------------------------------------------------------


def _cells(trace: Trace, graph: CausalGraph) -> Mapping[str, int]:
    """SAE layer label to the trace's layer, of those that have one."""
    found = {}
    for layer in graph.run.layers:
        point = StreamPoint.parse(layer.hook_point)
        block = point.block + (point.site == "post")
        if point.site != "mid" and block < trace.n_layers:
            found[layer.label] = block
    if not found:
        raise SaeGraphsError("no SAE of the graph stands at the input of a block")
    return found


def _kept(graph: CausalGraph, cells: Mapping[str, int]) -> Iterator[Placed]:
    """The features that the graph draws."""
    for node in graph.nodes:
        at, effect = node.feature.position, node.effect_on_answer
        if node.feature.layer in cells and at is not None and effect is not None:
            yield Placed(at, cells[node.feature.layer], -effect)


def _measured(
    graph: CausalGraph, effects: str | Path, cells: Mapping[str, int]
) -> Iterator[Placed]:
    """Every feature at a token whose effect was saved; dense ones as the graph has them."""
    from sae_graphs.effects.answer.saved import SavedAnswer

    saved = SavedAnswer(effects, graph.run)
    dense = bool(graph.run.settings.get("dense"))
    for depth, label in enumerate(saved.labels):
        if label not in cells:
            continue
        for block in saved.on_answer(depth, dense=dense):
            for at, effect in zip(block.source_positions, block.values, strict=True):
                yield Placed(int(at), cells[label], -float(effect))


def _compared(trace: Trace) -> NDArray[np.bool_]:
    """Where a state can be restored at all, the first token aside: `[T, L]`."""
    found = np.zeros((len(trace.tokens), trace.n_layers), dtype=bool)
    found[max(trace.subject[0], 1) : trace.read + 1] = True
    beside = [at for at in range(len(trace.tokens)) if at not in trace.subject]
    found[beside, 0] = False
    return found


# -- the number ------------------------------------------------------------------------------------


def _agreement(
    restored: Drawn, contributed: Drawn, compared: NDArray[np.bool_], seed: int
) -> tuple[float | None, float | None]:
    """The rank correlation over the cells compared, and its p.

    Neighbouring cells are alike, so none is moved alone: whole tokens of the graph change places,
    and its layers are turned around, as with the difference of two traces.
    """
    observed = rank_correlation(restored[compared], contributed[compared], fewest=FEWEST)
    if observed is None:
        return None, None
    rows, columns = compared.any(axis=1), compared.any(axis=0)
    within = compared[rows][:, columns]
    grid = contributed[rows][:, columns]
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.roll(grid[rng.permutation(len(grid))], rng.integers(grid.shape[1]), axis=1)[within]
            for _ in range(PERMUTATIONS)
        ]
    )
    return observed, p_value(observed, unit_ranks(drawn) @ unit_ranks(restored[compared]))
