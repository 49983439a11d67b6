"""Who wrote a feature and who removes it: against full passes with plain hooks, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sae_graphs.effects.ablations import Places, ablations_of, places_of
from sae_graphs.effects.anatomy import Writes
from sae_graphs.effects.describe import token_effects
from sae_graphs.effects.writers import Peaks, Scrubbing, peaks_of, writers_of, written_shares
from sae_graphs.graph.anatomy import BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.block_parts import CleanWrites
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from tests.conftest import BridgeOf
from tests.support.against_oracle import RELATIVE, Case, Record, case_of
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import ARCHITECTURES, PROMPT
from tests.support.parts_oracle import Parts, PartsOracle, encoder_by_hand
from tests.support.slow import only

LINEAR = ["standard", "jumprelu", "topk", "topk_rescaled"]
FEATURES_EACH = 6


def run_of(model: InstrumentedModel, ablate: str = "all") -> tuple[CleanRun, Places]:
    clean = model.clean_run(PROMPT)
    return clean, places_of(clean, effect_settings(ablate=ablate))  # type: ignore[arg-type]


def some_features(
    model: InstrumentedModel, clean: CleanRun, places: Places, at: int | None = None
) -> list[FeatureId]:
    """A few active features of every layer."""
    found = []
    for layer, activations in zip(model.stack.layers, clean.activations, strict=True):
        where = places.ablated.clone()
        if at is not None:
            where &= torch.arange(len(where)) == at
        for index in activations.active(where).tolist()[:FEATURES_EACH]:
            found.append(FeatureId(layer.label, index, at))
    return found


def writes_of(model: InstrumentedModel, clean: CleanRun, peaks: Peaks, places: Places) -> Writes:
    return CleanWrites(model, clean, torch.cat([places.reads, torch.tensor([*peaks.values()])]))


def scrubbing_of(writes: Writes, peaks: Peaks, places: Places) -> Scrubbing:
    """One that has heard the ablations of all the features, run on for their token effects."""
    model, clean = writes.model, writes.clean
    scrubbing = Scrubbing(writes, peaks, places)
    for depth, layer in enumerate(model.stack.layers):
        features = sorted(of_layer(peaks, layer.label), key=lambda feature: feature.index)
        indices = torch.tensor(sorted({feature.index for feature in features}))
        ablations = ablations_of(clean, depth, places, features=indices)
        plain, heard = (
            token_effects(model, clean, ablations, features, places, advance=advance)
            for advance in (None, scrubbing.advance)
        )
        for effects, again in zip(plain, heard, strict=True):
            for ours, other in zip(effects.promotes, again.promotes, strict=True):
                assert ours.effect_nats == pytest.approx(other.effect_nats, abs=1e-9)
    return scrubbing


def of_layer(peaks: Peaks, label: str) -> Peaks:
    return {feature: at for feature, at in peaks.items() if feature.layer == label}


def by_part(shares: Sequence[BlockShare]) -> dict[tuple[str, int], float]:
    return {(s.part, -1 if s.block is None else s.block): s.share for s in shares}


def deviation(found: Sequence[BlockShare], expected: dict[tuple[str, int], float]) -> float:
    """Of any share, relative to the largest; parts that only one side names count as 0."""
    ours = by_part(found)
    top = max(0.01, *(abs(share) for share in expected.values()))  # less is not shown
    return max(abs(ours.get(k, 0.0) - expected.get(k, 0.0)) / top for k in ours | expected)


def stacks_of(architecture: str) -> list[str]:
    return ["post"] if architecture == "neox" else ["pre", "mixed"]


CASES = [(name, stack) for name in ARCHITECTURES for stack in stacks_of(name)]


@pytest.mark.parametrize(
    ("architecture", "stack", "each"),
    only(
        ((*case, each) for case in CASES for each in (False, True)),
        *[("gpt2", "pre", False), ("neox", "post", True), ("gemma3", "mixed", False)],
    ),
)
def test_against_full_passes(
    bridge_of: BridgeOf, record_property: Record, architecture: str, stack: str, each: bool
) -> None:
    case = case_of(bridge_of(architecture, "float64"), stack, LINEAR, "float64")
    model, oracle, parts = case.model, case.oracle, PartsOracle(case.oracle)
    clean, places = run_of(model, "each" if each else "all")
    peaks = peaks_of(model, clean, some_features(model, clean, places, 5 if each else None), places)
    writes = writes_of(model, clean, peaks, places)
    scrubbed = scrubbing_of(writes, peaks, places).found
    worst, compared = 0.0, 0
    for depth, layer in enumerate(model.stack.layers):
        here = of_layer(peaks, layer.label)
        written = written_shares(writes, depth, here)
        for feature, at in here.items():
            activations = oracle.activations[depth][:, feature.index].abs()
            assert at == (5 if each else 1 + int(activations[1:].argmax()))
            expected = _written_slowly(case, parts, depth, feature.index, at)
            if feature in written:
                worst = max(worst, deviation(written[feature], expected))
            ablated = [5] if each else range(1, 10)
            removed = _scrubbed_slowly(case, parts, depth, feature.index, at, ablated)
            assert (feature in scrubbed) == bool(removed)
            if removed:
                worst = max(worst, deviation(scrubbed[feature], removed))
            compared += feature in written and feature in scrubbed
    assert compared >= 6
    record_property(f"deviation float64 writers {architecture}", worst)
    assert worst < RELATIVE


def _written_slowly(
    case: Case, parts: PartsOracle, depth: int, index: int, at: int
) -> dict[tuple[str, int], float]:
    hook, sae = case.oracle.hooks[depth], case.oracle.saes[depth]
    found: Parts = {("embedding", -1): parts.clean["blocks.0.hook_resid_pre"]}
    found |= parts.parts(parts.clean, "blocks.0.hook_resid_pre", hook)
    values = {part: float(encoder_by_hand(sae, x[at])[index]) for part, x in found.items()}
    whole = float(encoder_by_hand(sae, case.oracle.streams[depth][at])[index])
    return {part: value / whole for part, value in values.items()}


def _scrubbed_slowly(
    case: Case, parts: PartsOracle, depth: int, index: int, at: int, ablated: Sequence[int]
) -> dict[tuple[str, int], float]:
    oracle = case.oracle
    streams = parts.ablated(depth, index, ablated)
    assert streams is not None
    hook = oracle.hooks[depth]
    removed = (oracle.streams[depth] - streams[hook])[at]
    changed, clean = (parts.parts(x, hook, None) for x in (streams, parts.clean))
    there, shares = removed @ removed, {}
    still_there = there
    for part in changed:  # in the order in which they write
        before = still_there
        still_there = before - (changed[part] - clean[part])[at] @ removed
        ratios = [float((x / there).abs().clamp(max=1)) for x in (before, still_there)]
        shares[part] = ratios[0] - ratios[1]
    return shares


@pytest.mark.slow
def test_written_shares_add_up_to_one(bridge_of: BridgeOf) -> None:
    for architecture in ARCHITECTURES:
        for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-3)):
            case = case_of(bridge_of(architecture, dtype), "post", ["standard"], dtype)
            clean, places = run_of(case.model)
            peaks = peaks_of(case.model, clean, some_features(case.model, clean, places), places)
            writes = writes_of(case.model, clean, peaks, places)
            for depth, layer in enumerate(case.model.stack.layers):
                shares = written_shares(writes, depth, of_layer(peaks, layer.label))
                assert shares
                for found in shares.values():
                    assert len(found) == 1 + 2 * (layer.point.block + 1)
                    assert sum(share.share for share in found) == pytest.approx(1, abs=tolerance)


def test_encoders_that_are_not_linear_have_no_writers(bridge_of: BridgeOf) -> None:
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["layer_norm", "gated"], "float64")
    clean, places = run_of(case.model)
    peaks = peaks_of(case.model, clean, some_features(case.model, clean, places), places)
    writes = writes_of(case.model, clean, peaks, places)
    found = writers_of(writes, peaks, scrubbing_of(writes, peaks, places).found)
    assert found
    assert all(shares.written_by == () for shares in found.values())
    assert any(shares.scrubbed_by for shares in found.values())  # that asks no encoder


def test_silent_features_have_neither(tiny: InstrumentedModel) -> None:
    clean, places = run_of(tiny)
    active = set(clean.activations[1].active(places.ablated).tolist())
    silent = next(index for index in range(40) if index not in active)
    assert peaks_of(tiny, clean, [FeatureId("1", silent)], places) == {}


def test_a_feature_at_many_positions(tiny: InstrumentedModel) -> None:
    """Each of its nodes has the shares of its own position, as if it were looked at alone."""
    clean, places = run_of(tiny, "each")
    label, activations = tiny.stack.layers[1].label, clean.activations[1].dense()  # [T, F]
    index = int((activations[1:] != 0).sum(0).argmax())
    at = [position for position in range(1, 10) if activations[position, index] != 0]
    assert len(at) > 1
    features = [FeatureId(label, index, position) for position in at]
    peaks = peaks_of(tiny, clean, features, places)
    assert peaks == dict(zip(features, at, strict=True))
    writes = writes_of(tiny, clean, peaks, places)
    together = written_shares(writes, 1, peaks)
    alone = [written_shares(writes, 1, {f: p}) for f, p in peaks.items()]
    assert len(together) > 1
    assert together.keys() == {feature for found in alone for feature in found}
    for found in alone:
        for feature, shares in found.items():
            for ours, theirs in zip(together[feature], shares, strict=True):
                assert ours.share == pytest.approx(theirs.share, rel=1e-9, abs=1e-12)


def test_what_a_node_names(tiny: InstrumentedModel, tiny_graph: CausalGraph) -> None:
    """The strongest three, strongest first; no share of a hundredth or less; scrubbers remove."""
    graph = tiny_graph
    clean, places = run_of(tiny)
    peaks = peaks_of(tiny, clean, [node.feature for node in graph.nodes], places)
    writes = writes_of(tiny, clean, peaks, places)
    named = 0
    for node in graph.nodes:
        depth = graph.depths[node.feature.layer]
        here = {node.feature: peaks[node.feature]} if node.feature in peaks else {}
        every = written_shares(writes, depth, here).get(node.feature, [])
        strong = sorted((s for s in every if abs(s.share) > 0.01), key=lambda s: -abs(s.share))
        for ours, wanted in zip(node.written_by, strong[:3], strict=True):
            assert (ours.part, ours.block) == (wanted.part, wanted.block)
            assert ours.share == pytest.approx(wanted.share)
        sizes = [share.share for share in node.scrubbed_by]
        assert sizes == sorted(sizes, reverse=True)
        assert all(size > 0.01 for size in sizes)
        named += len(node.written_by) + len(node.scrubbed_by)
    assert named > 10


# -- by hand ---------------------------------------------------------------------------------------

# The equations are in `linear_model.py`, the streams in `test_analytic.py`.
# 1.0 at b is 2, as embedded. 1.1 at b is 5: 1 embedded, 2 (2) from the MLP. 1.2 at a is 6: -3 (1)
# from the MLP, 9 from the ^ before. 2.0 at b is 5: 2 embedded, 1/2 (6) from the a before.
# 2.2 at a is 33: -3 and 9 as above, 27 from the ^ before.
WRITTEN = {
    "0.0": [("embedding", None, 1.0)],
    "1.0": [("embedding", None, 1.0)],
    "1.1": [("mlp", 0, 0.8), ("embedding", None, 0.2)],
    "1.2": [("attention", 0, 1.5), ("mlp", 0, -0.5)],
    "2.0": [("attention", 1, 0.6), ("embedding", None, 0.4)],
    "2.2": [("attention", 1, 27 / 33), ("attention", 0, 9 / 33), ("mlp", 0, -3 / 33)],
}
# Without 0.0, y2 at a is not 6 but 9, of which block 1 hands 1/2 (3) on to z0 at b: of the 2 that
# were taken out there, three quarters come back. Nothing else puts a feature back.
SCRUBBED = {"0.0": [("attention", 1, 0.75)]}


def test_by_hand() -> None:
    graph = effect_graph(linear_model(), "ab", min_path_edges=1, top_k=100)
    assert WRITTEN.keys() < {str(node.feature) for node in graph.nodes}
    for node in graph.nodes:
        name = str(node.feature)
        if name in WRITTEN:
            assert _listed(node.written_by) == WRITTEN[name]
        assert _listed(node.scrubbed_by) == SCRUBBED.get(name, [])


def _listed(shares: Sequence[BlockShare]) -> list[Any]:
    return [(share.part, share.block, pytest.approx(share.share)) for share in shares]
