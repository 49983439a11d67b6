"""Paths that carry: what a chain of features does to the answer when nothing else may follow.

Path patching (Goldowsky-Dill et al., "Localizing model behavior with path patching", 2023), exact:
the first feature is ablated, at each SAE layer after it the path's feature alone takes what it has
become, everything else is as it was. Past the last feature SAE features are held, and what the SAEs
do not express may follow. In nats, changed minus clean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch

from sae_graphs.effects.answer.circuit import Circuit, Spot
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.effects.exact import changed_rows
from sae_graphs.graph.answer import MEDIATES
from sae_graphs.model.joint import (
    Edit,
    Selected,
    becoming_rows,
    by_copy,
    holding_features,
    holding_others,
    logits_of,
    packs,
    run_edits,
)
from sae_graphs.model.rows import Rows, Where

PATHS = 3
CANDIDATES = 64  # paths that are patched, of those that the narrowest edge promises most of
DIVERSE = 0.5  # of a path's features may be in another that was taken

Path = tuple[Spot, ...]


def best_paths(asked: Asked, table: Table, circuit: Circuit) -> list[tuple[Path, float]]:
    """The diverse paths that carry most, and what flows along each, in nats.

    First those that mediate at least half of what their first feature does, then the others; of
    each those that begin before the answer's own token, by |flow|. One at least begins there, where
    any that is diverse does. Paths that begin in that token's own embedding come after all others,
    and those without an edge between features last. What flows against the whole is left out.
    """
    patched = candidates(circuit)
    flows = {
        path: flow
        for path, flow in zip(patched, flows_along(asked, table, patched), strict=True)
        if flow * table.effect(path[0]) > 0
    }

    def rank(path: Path) -> tuple[bool, bool, bool, bool, float, Path]:
        share = flows[path] / table.effect(path[0])
        half = MEDIATES[0] <= share <= MEDIATES[1]
        here = path[0].position == asked.read
        embedded = here and path[0].depth == 0
        return len(path) == 1, embedded, not half, here, -abs(flows[path]), path

    ranked = sorted(flows, key=rank)
    found = diverse(ranked, PATHS)
    before = [path for path in ranked if path[0].position != asked.read and len(path) > 1]
    if not set(before) & set(found):  # then the last gives way to one of them, where one may
        found = diverse([*found[: PATHS - 1], *before, *found], PATHS)
    return [(path, flows[path]) for path in found]


def candidates(circuit: Circuit, limit: int = CANDIDATES) -> list[Path]:
    """The paths to the answer whose narrowest edge lets most through, widest first.

    From any feature. Exact: the best `limit` into each are kept on one sweep up the layers.
    """
    into: dict[Spot, list[tuple[Spot, float]]] = {}
    for link in circuit.links:
        into.setdefault(link.target, []).append((link.source, abs(link.flow)))
    best: dict[Spot, list[tuple[float, Path]]] = {}
    for spot in sorted({*circuit.kept, *circuit.relays}):
        ways = [
            (min(width, flow), (*path, spot))
            for source, flow in into.get(spot, ())
            for width, path in best[source]
        ]
        ways.append((math.inf, (spot,)))
        best[spot] = sorted(ways, key=_widest)[:limit]
    ended = [
        (min(width, abs(effect)), path)
        for spot, effect in circuit.ends.items()
        for width, path in best[spot]
    ]
    return [path for _, path in sorted(ended, key=_widest)[:limit]]


def _widest(way: tuple[float, Path]) -> tuple[float, Path]:
    return -way[0], way[1]


@torch.no_grad()
def flows_along(asked: Asked, table: Table, paths: Sequence[Path]) -> list[float]:
    """What the ablation of each path's first feature does to the answer along the path alone.

    All paths are run at once, one a copy: at a layer each copy's edit is that of its own path.
    """
    model, clean, answer, read = asked
    before, found = answer.score(clean.logits[read]), []
    for first, stop in packs(model, clean, len(paths)):
        part = paths[first:stop]
        edits = {
            depth: _edit_at(asked, table, part, depth)
            for depth in range(min(path[0].depth for path in part), len(model.stack.layers))
        }
        ran = run_edits(model, clean, edits, len(part), read)
        found += (answer.score(logits_of(model, clean, ran, read)) - before).tolist()
    return found


def _edit_at(asked: Asked, table: Table, paths: Sequence[Path], depth: int) -> Edit:
    """The paths' first feature is ablated where it stands, their others are free, all else held."""
    model, clean = asked.model, asked.clean
    device = clean.streams[depth].device
    step = [depth - path[0].depth for path in paths]
    inside = [0 < at < len(path) for at, path in zip(step, paths, strict=True)]
    past = [at >= len(path) for at, path in zip(step, paths, strict=True)]
    kinds: list[tuple[list[bool], Edit]] = []
    if begun := [copy for copy, at in enumerate(step) if at == 0]:
        ablations = table.of([paths[copy][0] for copy in begun])
        rows = changed_rows(model, clean, ablations)
        copies = torch.tensor(begun, device=device)[rows.where.copies]
        edit = becoming_rows(Rows(Where(copies, rows.where.positions), rows.streams))
        kinds.append(([at == 0 for at in step], edit))
    if any(inside):
        spots = [path[at : at + 1] * go for at, path, go in zip(step, paths, inside, strict=True)]
        free = selected(spots, len(clean), device)[depth]
        kinds.append((inside, holding_others(model, clean, depth, free)))
    if any(past):
        kinds.append((past, holding_features(model, clean, depth)))
    return by_copy([(torch.tensor(which, device=device), edit) for which, edit in kinds])


def selected(
    sets: Sequence[Collection[Spot]], n_tokens: int, device: torch.device
) -> Mapping[int, Selected]:
    """Sets of features at tokens, one a copy, by depth."""
    found: dict[int, Selected] = {}
    for depth in sorted({spot.depth for spots in sets for spot in spots}):
        here = [
            (copy, spot) for copy, spots in enumerate(sets) for spot in spots if spot.depth == depth
        ]
        features, which = torch.tensor([s.feature for _, s in here], device=device).unique(
            return_inverse=True
        )
        chosen = torch.zeros(len(sets), n_tokens, len(features), dtype=torch.bool, device=device)
        copies = torch.tensor([copy for copy, _ in here], device=device)
        at = torch.tensor([spot.position for _, spot in here], device=device)
        chosen[copies, at, which] = True
        found[depth] = Selected(features, chosen)
    return found


def diverse(ranked: Iterable[Path], limit: int) -> list[Path]:
    """The first paths that share at most half of their features with each one taken before."""
    taken: list[Path] = []
    for path in ranked:
        if len(taken) < limit and all(
            len({*path} & {*other}) <= DIVERSE * min(len(path), len(other)) for other in taken
        ):
            taken.append(path)
    return taken
