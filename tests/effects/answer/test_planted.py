"""A model in which it is known what the answer hangs on: the graph is that, and nothing else.

Three SAE layers of eight features each, every layer with coordinates of its own. At `three` feature
0 is on; the first block makes 1 of it there, the second hands that on to the next token as 2, and 2
alone makes the model say `yes`. Feature 5 is a decoy: on at every token of every layer, and worth
more to the answer than all else.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sae_graphs.effects.answer.build import answer_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import Reference
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.linear_model import Block
from tests.support.planted import WORDS, PlantedModel, slice_sae

LAYERS, WIDTH = 3, 8
PROMPT = "one two three four"  # with BOS: `three` is token 3, `four`, which is read, token 4
ACTIVATION, LOGIT, DECOY = 2.0, 3.0, 5


def at(layer: int, feature: int) -> int:
    """The feature's coordinate."""
    return layer * WIDTH + feature


def planted(*, decoy: bool = True) -> InstrumentedModel:
    size = LAYERS * WIDTH
    embedding = torch.zeros(len(WORDS), size, dtype=torch.float64)
    embedding[:, at(0, 7)] = 0.5  # another that is on at every token, and does nothing
    embedding[WORDS.index("three"), at(0, 0)] = ACTIVATION
    unembedding = torch.zeros(len(WORDS), size, dtype=torch.float64)
    unembedding[WORDS.index("yes"), at(2, 2)] = LOGIT / ACTIVATION
    if decoy:
        for layer in range(LAYERS):
            embedding[:, at(layer, DECOY)] = 1.0
        unembedding[WORDS.index("yes"), at(2, DECOY)] = 10.0
    here, before = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
    here[at(1, 1), at(0, 0)] = 1.0
    before[at(2, 2), at(1, 1)] = 1.0
    nothing = torch.zeros(size, size, dtype=torch.float64)
    model = PlantedModel(embedding, [nothing, nothing], unembedding)
    model.blocks = nn.ModuleList(
        [Block(here.tolist(), nothing.tolist()), Block(nothing.tolist(), before.tolist())]
    )
    model.hook_dict = {
        f"blocks.{number}.{name}": hook
        for number, block in enumerate(model.blocks)
        for name, hook in block.named_children()
    }
    hooks = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    saes = [
        slice_sae(layer, hook, width=WIDTH, n_layers=LAYERS) for layer, hook in enumerate(hooks)
    ]
    return InstrumentedModel(model, saes)


def references(dense: float = 1.0) -> list[Reference]:
    """Only the decoy is on at most tokens; there it has half of its activation."""
    found = []
    for _ in range(LAYERS):
        mean, density = torch.zeros(WIDTH), torch.full((WIDTH,), 0.1)
        mean[DECOY], density[DECOY] = 0.5, dense
        found.append(Reference(mean, density, 1000, "planted", "none"))
    return found


def graph_of(model: InstrumentedModel, **options: object) -> CausalGraph:
    settings = GraphSettings(**options)  # type: ignore[arg-type]
    return answer_graph(model, PROMPT, settings, references=references())


def test_the_route_is_the_graph() -> None:
    graph = graph_of(planted(), target=["yes"])
    names = [str(node.feature) for node in graph.nodes]
    assert names == ["token@3", "0.0@3", "1.1@3", "2.2@4", "answer"]
    assert {(str(edge.source), str(edge.target)) for edge in graph.edges} == {
        ("token@3", "0.0@3"),
        ("0.0@3", "1.1@3"),
        ("1.1@3", "2.2@4"),
        ("2.2@4", "answer"),
    }


def test_every_number_is_known() -> None:
    """The one rival of `yes` is 13 words at logit 0, `no` among them."""
    graph = graph_of(planted(), target=["yes"], contrast="no")
    answer = graph.run.answer
    assert answer is not None
    assert answer.score == pytest.approx(LOGIT + 10.0)
    for feature in ("0.0@3", "1.1@3", "2.2@4"):
        assert graph[feature].effect_on_answer == pytest.approx(-LOGIT)
    first, second, last = (
        graph.edge(*ends) for ends in (("0.0@3", "1.1@3"), ("1.1@3", "2.2@4"), ("2.2@4", "answer"))
    )
    for edge in (first, second):
        assert (edge.effect, edge.relative_effect) == pytest.approx((-ACTIVATION, -1.0))
        assert edge.flow == pytest.approx(-LOGIT)
    assert last.effect == last.flow == pytest.approx(-LOGIT)
    assert graph["0.0@3"].direct_effect == graph["1.1@3"].direct_effect == 0.0
    assert [path.features for path in answer.paths] == [("0.0@3", "1.1@3", "2.2@4")]
    assert answer.paths[0].share == pytest.approx(1.0)
    coverage = answer.coverage
    assert coverage is not None
    assert coverage.without_kept == coverage.without_any == pytest.approx(10.0)
    assert coverage.only_kept == coverage.clean == answer.score
    assert (coverage.lost, coverage.left) == pytest.approx((1.0, 1.0))


def test_the_decoy_is_folded_and_kept_on_request() -> None:
    model = planted()
    folded = graph_of(model, target=["yes"], contrast="no")
    assert folded.run.answer is not None
    (decoy,) = folded.run.answer.dense
    assert (decoy.feature, decoy.density) == ("2.5@4", 1.0)
    assert decoy.effect_on_answer == pytest.approx(-5.0)  # to its mean, not to 0
    kept = graph_of(model, target=["yes"], contrast="no", dense=True)
    assert "2.5@4" in kept and not kept.run.answer.dense  # type: ignore[union-attr]


def test_what_is_always_on_everywhere_is_no_graph() -> None:
    """Reference ablation moves a dense feature to its mean alone; where that is all, all is 0."""
    everything = [
        Reference(torch.full((WIDTH,), 9.0), torch.ones(WIDTH), 1000, "planted", "none")
        for _ in range(LAYERS)
    ]
    graph = answer_graph(planted(), PROMPT, GraphSettings(), references=everything)
    assert [str(node.feature) for node in graph.nodes] == ["answer"]
    assert any("coverage" in warning for warning in graph.run.warnings)


def test_what_would_lead_nowhere_gets_a_relay() -> None:
    """The first two features of the route are kept; the third hands on what they do."""
    graph = graph_of(planted(decoy=False), target=["yes"], nodes=2)
    roles = {str(n.feature): n.relay for n in graph.nodes if n.feature.is_feature}
    assert roles == {"0.0@3": False, "1.1@3": False, "2.2@4": True}
    assert graph.edge("2.2@4", "answer").flow == graph["2.2@4"].effect_on_answer


def test_no_more_relays_than_kept_features() -> None:
    """One alone would need two: it is drawn apart, and counted."""
    graph = graph_of(planted(decoy=False), target=["yes"], nodes=1)
    assert [str(n.feature) for n in graph.nodes if n.feature.is_feature] == ["0.0@3"]
    assert graph.run.answer is not None
    assert graph.run.answer.stranded == ("0.0@3",)
    assert any("1 of 1 kept features lead nowhere" in words for words in graph.run.warnings)


def test_wrong_places_are_told_in_one_line() -> None:
    model = planted()
    for options, words in (
        ({"read": 0}, "first"),
        ({"read": 9}, "outside the prompt"),
        ({"pin": "1.6"}, "inactive at every ablated position"),
        ({"target": ["yes"], "contrast": "yes"}, "both 'yes'"),
    ):
        with pytest.raises(SaeGraphsError, match=words) as raised:
            graph_of(model, **options)
        assert "\n" not in str(raised.value)
