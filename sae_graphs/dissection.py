"""Taking a graph apart: through which blocks its edges came, which wrote and scrub its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from sae_graphs.ablation import Ablations, Places
from sae_graphs.anatomy import with_anatomy
from sae_graphs.block_parts import CleanWrites
from sae_graphs.graph import Edge, Node
from sae_graphs.instrument import CleanRun, InstrumentedModel
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.writers import Shares, peaks_of, writers_of


class Dissection(NamedTuple):
    """Edges with anatomies, nodes with writers; by layer label, why edges have no anatomy."""

    edges: tuple[Edge, ...]
    nodes: list[Node]
    reasons: dict[str, str]
    warnings: tuple[str, ...]


@torch.no_grad()
def dissected(
    model: InstrumentedModel,
    clean: CleanRun,
    edges: Sequence[Edge],
    nodes: Sequence[Node],
    ablations: Sequence[Ablations],
    places: Places,
    intervention: Intervention = ZERO,
    *,
    heads: bool = False,
) -> Dissection:
    """The edges and nodes with what each block has to do with them, where that can be told.

    `ablations` are those that the edges were measured with, one for each layer that has edges;
    `heads` splits attention by head.
    """
    features = [node.feature for node in nodes if not node.feature.is_output]
    peaks = peaks_of(model, clean, features, places)
    at = torch.tensor(sorted(peaks.values()), dtype=torch.int64, device=places.reads.device)
    writes = CleanWrites(model, clean, torch.cat([places.reads, at]), heads=heads)
    split = with_anatomy(writes, edges, ablations, places)
    shares = writers_of(writes, peaks, places, intervention)
    described = []
    for node in nodes:
        written_by, scrubbed_by = shares.get(node.feature, Shares())
        described.append(replace(node, written_by=written_by, scrubbed_by=scrubbed_by))
    return Dissection(tuple(split.edges), described, split.reasons, split.warnings)
