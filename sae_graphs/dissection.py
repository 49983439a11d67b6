"""Taking a graph apart: through which blocks its edges came, which wrote and scrub its features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from sae_graphs.anatomy import with_anatomy
from sae_graphs.describing import describe
from sae_graphs.graph.records import Edge, FeatureId, Node
from sae_graphs.measuring import Experiment
from sae_graphs.model.block_parts import CleanWrites
from sae_graphs.writers import Scrubbing, Shares, peaks_of, writers_of


class Parts(NamedTuple):
    """Edges with anatomies, nodes with writers; by layer label, why edges have no anatomy."""

    edges: tuple[Edge, ...]
    nodes: list[Node]
    reasons: dict[str, str]
    warnings: tuple[str, ...]


class Dissection:
    """What each block has to do with a graph's edges and features, where that can be told.

    The features are `advance`d by whoever runs their ablations to the end of the model: which
    blocks scrub them is heard on the way.
    """

    def __init__(self, experiment: Experiment, features: Collection[FeatureId]) -> None:
        model, clean, places = experiment.model, experiment.clean, experiment.places
        heads = experiment.settings.heads
        self._experiment = experiment
        self._peaks = peaks_of(model, clean, features, places)
        at = torch.tensor(list(self._peaks.values()), dtype=torch.int64, device=places.reads.device)
        self._writes = CleanWrites(model, clean, torch.cat([places.reads, at]), heads=heads)
        self._scrubbing = Scrubbing(self._writes, self._peaks, places)
        self.advance = self._scrubbing.advance

    @torch.no_grad()
    def parts(self, edges: Sequence[Edge], nodes: Sequence[Node]) -> Parts:
        """The edges and the nodes with what was found of them."""
        ablations = self._experiment.ablations if edges else ()
        split = with_anatomy(self._writes, edges, ablations, self._experiment.places)
        shares = writers_of(self._writes, self._peaks, self._scrubbing.found)
        described = []
        for node in nodes:
            written_by, scrubbed_by = shares.get(node.feature, Shares())
            described.append(replace(node, written_by=written_by, scrubbed_by=scrubbed_by))
        return Parts(tuple(split.edges), described, split.reasons, split.warnings)


@torch.no_grad()
def described(
    experiment: Experiment, features: Collection[FeatureId], edges: Sequence[Edge] = ()
) -> Parts:
    """All that is known of some features and edges of a graph."""
    dissection = Dissection(experiment, features)
    nodes, warnings = describe(experiment, features, dissection.advance)
    parts = dissection.parts(edges, nodes)
    return parts._replace(warnings=(*parts.warnings, *warnings))
