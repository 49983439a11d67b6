"""Whatever reads a graph reads answer graphs: no token and no answer is taken for a feature."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from rich.console import Console

from sae_graphs.cli.edge_table import print_edges
from sae_graphs.cli.graph_table import print_graph
from sae_graphs.effects.build import causal_graph
from sae_graphs.effects.replot import replot
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.neuronpedia.annotate import annotate
from sae_graphs.gallery.artist import thumbnail
from sae_graphs.gallery.comparison import comparison
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.runs import runs_in
from sae_graphs.graph.annotations import Annotations, Group, fitting
from sae_graphs.graph.combine import common, union
from sae_graphs.graph.difference import difference
from sae_graphs.graph.export.attribution import attribution
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.export.formats import FORMATS, exported
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes, coverage_sentence, name_of, score_sentence
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.pretrained.loading import load
from sae_graphs.render import pictures as render
from sae_graphs.render.explorer.page import page
from sae_graphs.render.notebook import node_html
from sae_graphs.render.picture.header import settings_words, share_words
from tests.support.answer_graphs import RELAYS, STRANDED, answer_graph, hostile_answers
from tests.support.effect_graphs import effect_graph
from tests.support.models import PROMPT
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import write_run
from tests.support.slow import first

KINDS = ("hostile", "random", "by hand", "bundled")
IOI = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def made(tiny: InstrumentedModel) -> Callable[[str], CausalGraph]:
    """A graph by its kind, made once."""
    making: dict[str, Callable[[], CausalGraph]] = {
        "by hand": answer_graph,
        "hostile": hostile_answers,
        "random": lambda: causal_graph(tiny, PROMPT, nodes=6),
        "bundled": lambda: causal_graph(load("demo"), IOI),
    }
    return cache(lambda kind: making[kind]())


@pytest.fixture(params=first(2, KINDS))
def graph(request: pytest.FixtureRequest, made: Callable[[str], CausalGraph]) -> CausalGraph:
    return made(request.param)


def features_of(graph: CausalGraph) -> list[FeatureId]:
    """What is a feature of an SAE: it has a layer of the run."""
    labels = {layer.label for layer in graph.run.layers}
    return [node.feature for node in graph.nodes if node.feature.layer in labels]


def tokens_of(graph: CausalGraph) -> list[FeatureId]:
    return [node.feature for node in graph.nodes if str(node.feature).startswith("token@")]


def said(graph: CausalGraph) -> str:
    """The picture as SVG, its texts as they are read."""
    return html.unescape(render.svg(graph)).replace("\xa0", " ")


# -- files and questions ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_answer_graph_opens_without_this_package(
    graph: CausalGraph, tmp_path: Path
) -> None:
    file = graph.save(tmp_path / "graph.json")
    with file.open() as opened:
        digraph = nx.node_link_graph(json.load(opened), edges="edges")
    assert set(digraph) == {str(node.feature) for node in graph.nodes}
    assert "answer" in digraph and digraph.nodes["answer"]["token"] == graph["answer"].token
    assert digraph.graph["answer"]["score"] == graph["answer"].activation
    for feature in tokens_of(graph):
        assert digraph.nodes[str(feature)]["token"] == graph.run.tokens[feature.position or 0]
    known = [digraph.nodes[str(feature)]["effect_on_answer"] for feature in features_of(graph)]
    assert all(isinstance(value, float) for value in known)
    assert CausalGraph.load(file) == graph


def test_nodes_are_counted_and_named(graph: CausalGraph) -> None:
    words = counted_nodes(graph.nodes)
    assert words.startswith(f"{len(features_of(graph))} feature") and words.endswith("the answer")
    assert "output token" not in words
    for feature in tokens_of(graph):
        assert name_of(graph.run, feature).startswith(f"{feature} ")
    assert name_of(graph.run, ANSWER).startswith("answer ")


def test_paths_and_components(graph: CausalGraph) -> None:
    assert all(path.features[-1] == ANSWER for path in graph.paths(target="answer", limit=3))
    assert sum(len(part) for part in graph.components()) == len(graph)


def test_questions_of_the_hand_made_graph() -> None:
    graph = answer_graph()
    assert [str(feature) for feature in graph.successors("0.1@1")] == ["1.2@1"]
    assert [str(feature) for feature in graph.predecessors("answer")] == ["1.2@1", "2.3@3"]
    assert str(graph.find_edges(source="token@1")[0].target) == "0.1@1"
    assert graph.n_components == 2 and graph.component(2).nodes[0].feature == FeatureId.parse(
        STRANDED
    )
    words = "log-odds of ) 4.00 nats, probability 90%"
    assert score_sentence(graph.run) == words
    assert graph.run.answer is not None
    assert coverage_sentence(graph.run.answer.coverage) == (
        "Of what all rarely-on features together contribute, ablating the kept ones takes 75% "
        "(as many random ones 6.2%), and keeping them alone leaves 62% (random ones 6.2%)"
    )
    assert words in share_words(graph)
    assert settings_words(graph.run.settings) == (
        "the 5 features at tokens that are rarely on with the largest effect on the answer, each "
        "ablated at one token alone, never at the first; at most 4 arrows into each; intervention: "
        "mean (of 100 tokens, abc)"
    )


# -- pictures and pages ----------------------------------------------------------------------------


def test_pictures(graph: CausalGraph) -> None:
    source = render.dot(graph)
    for feature in features_of(graph):
        assert f'id="node-{feature}"' in source
    drawn = said(graph)
    assert "hangs on" in drawn and "How to read it" in drawn
    assert "total |effect|" not in drawn  # effects on different targets are not added up
    assert len(render.png(graph)) > 1000


def test_what_a_box_says_of_the_answer() -> None:
    drawn = said(answer_graph())
    assert "supports by 3.00 nats" in drawn and "opposes by 0.500 nats" in drawn
    assert "relay, 1.00 nats" in drawn and "log-odds 4.00" in drawn and "answer" in drawn
    assert "+2.00" in drawn and "−0.500" in drawn  # what flows along arrows: positive helps
    assert 'STYLE="DASHED"' in render.dot(answer_graph())  # an opposer, whatever the hue
    assert "logit difference" in said(answer_graph(contrast="]"))


def test_the_explorer(graph: CausalGraph) -> None:
    text = page(graph)
    start = text.index('id="graph-data">') + len('id="graph-data">')
    data = json.loads(text[start : text.index("</script>", start)])
    nodes = {node["id"]: node for node in data["nodes"]}
    assert nodes["answer"]["place"] == "answer" and nodes["answer"]["own"]
    for feature in tokens_of(graph):
        assert nodes[str(feature)]["place"] == "prompt" and "active" not in nodes[str(feature)]
    for feature in features_of(graph):
        assert "own" not in nodes[str(feature)] and nodes[str(feature)]["answer"]
    assert max(edge["rank"] for edge in data["edges"]) <= max(
        len([e for e in graph.edges if e.target == edge.target]) for edge in graph.edges
    )
    assert "<script>alert" not in text


@pytest.mark.slow
def test_cards_of_a_notebook(graph: CausalGraph) -> None:
    assert "active" not in node_html(graph["answer"]) and "score" in node_html(graph["answer"])
    for feature in tokens_of(graph):
        assert "logit" not in node_html(graph[feature])
    for feature in features_of(graph):
        assert " nats, in Graph" in node_html(graph[feature])
    assert repr(graph) and graph._repr_svg_()


def test_the_terminal(graph: CausalGraph) -> None:
    for width in (80, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        print_graph(console, graph, seconds=1.0)
        told = console.export_text()
        assert all(len(line) <= width for line in told.splitlines())
        for feature in features_of(graph):
            if not graph[feature].relay:
                assert str(feature) in told
        assert "path 1: " in told and "mediates" in told
        assert "\x1b[31m" not in told


def test_the_terminal_tells_of_the_hand_made_graph() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_graph(console, answer_graph(), seconds=1.0)
    told = " ".join(console.export_text().split())
    rows = ["0.1@1 Copyright supports +3.00", "0.7@2 ␣( opposes -0.500"]
    assert all(row in told for row in rows)
    assert "6 features, 2 tokens and the answer, 8 edges; 1 feature of these as relays" in told
    assert f"{RELAYS[0]} C supports" not in told
    assert "left out, as they are on in any text (--dense keeps them): 3.5@3 (+6.00) nats" in told
    assert "path 1: 0.1@1 Copyright → 1.2@1 Copyright → 2.3@3 C → the answer" in told
    assert "mediates 60% of what 0.1@1 does (+1.80 of +3.00 nats)" in told
    assert "40 features, each at one position, measured" in told


@pytest.mark.parametrize("style", ["table", "csv", "json"])
@pytest.mark.parametrize("anatomy", [False, True])
def test_tables_of_edges(graph: CausalGraph, style: str, anatomy: bool) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    print_edges(console, graph, graph.edges, style, anatomy=anatomy)
    told = console.export_text()
    if style == "json":
        rows = json.loads(told)
        assert [row["flow"] for row in rows] == [edge.flow for edge in graph.edges]
    elif style == "csv":
        rows = list(csv.DictReader(io.StringIO(told)))
        assert len(rows) == len(graph.edges) and {"flow", "relative_effect"} <= rows[0].keys()
    else:
        assert "helps" in told


# -- exports ---------------------------------------------------------------------------------------


def test_a_frame(graph: CausalGraph) -> None:
    frame = graph.to_pandas()
    assert list(frame["flow"]) == [edge.flow for edge in graph.edges]
    assert frame["relative_effect"][frame["target"] == "answer"].isna().all()


@pytest.mark.parametrize("kind", FORMATS)
def test_exports(graph: CausalGraph, kind: str) -> None:
    files = exported(graph, kind, told=lambda line: None)
    assert all(files.values())
    if kind == "csv":
        text = files["graph.nodes.csv"].decode()
        rows = {row["feature"]: row for row in csv.DictReader(io.StringIO(text))}
        assert rows["answer"]["kind"] == "answer"
        assert {rows[str(feature)]["kind"] for feature in tokens_of(graph)} <= {"token"}
        for feature in features_of(graph):
            assert rows[str(feature)]["kind"] == "feature"
            assert float(rows[str(feature)]["effect_on_answer"]) == pytest.approx(
                graph[feature].effect_on_answer
            )
    if kind == "graphml":
        read = nx.read_graphml(io.BytesIO(files["graph.graphml"]))
        assert set(read) == {str(node.feature) for node in graph.nodes}


def test_the_attribution_graph(graph: CausalGraph) -> None:
    data = attribution(graph).data
    assert broken_rules(data) == ()
    kinds: dict[str, list[Any]] = {"embedding": [], "logit": []}
    for each in data["nodes"]:
        kinds.setdefault(each["feature_type"], []).append(each)
    assert len(kinds["embedding"]) == graph.run.read_position + 1  # every token, used or not
    (logit,) = kinds["logit"]
    assert logit["feature"] == graph.run.outputs[0].token_id and logit["is_target_logit"]
    assert logit["ctx_idx"] == graph.run.read_position
    assert "in nats" in data["metadata"]["generation_settings"]["link_weight"]
    weights = sorted(link["weight"] for link in data["links"])
    assert weights == pytest.approx(sorted(-edge.flow for edge in graph.edges))  # type: ignore[operator]


# -- several graphs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sums_over_tokens(graph: CausalGraph) -> None:
    plain = graph.summed()
    assert not plain.resolves_positions and not tokens_of(plain)
    assert "answer" in plain
    for node in plain.nodes:
        if node.feature.is_feature:
            same = [graph[each] for each in graph.at_positions(node.feature)]
            total = sum(each.effect_on_answer or 0.0 for each in same)
            assert node.effect_on_answer == pytest.approx(total)
    assert render.svg(plain) and page(plain)
    assert all(exported(plain, kind, told=lambda line: None) for kind in ("csv", "gexf"))
    with pytest.raises(SaeGraphsError, match="cannot sum an answer graph at 2"):
        graph.summed(2)


@pytest.mark.slow
def test_unions_and_differences(graph: CausalGraph) -> None:
    assert union(graph, graph) == graph
    found = difference(graph, graph)
    assert len(found.shared) == len(graph.edges) and not found.warnings
    assert not found.lost_features and not found.new_features
    assert found.aligned == "by position: the prompts have the same tokens"
    both = common([graph, graph])
    assert {node.feature for node in both.nodes} == {node.feature for node in graph.nodes}
    assert {edge.flow for edge in both.edges} == {edge.flow for edge in graph.edges}
    assert "shared by the graphs of 2 prompts, by position" in settings_words(both.run.settings)
    assert said(both) and page(both)


def test_a_difference_says_what_kind_of_graphs_and_which_answers() -> None:
    other = answer_graph(answer="]")
    told = " ".join(difference(answer_graph(), other).warnings)
    assert "the answers are ')', ']'" in told
    told = " ".join(difference(answer_graph().summed(), two_edges_of_the_same()).warnings)
    assert "select ('answer' and 'effect')" in told and "nodes (5 and None)" in told


def two_edges_of_the_same() -> CausalGraph:
    return two_edges()


def test_pins_of_answer_graphs_are_joined() -> None:
    settings = dict(answer_graph().run.settings)
    left = answer_graph(settings={**settings, "pin": ["0.1"]})
    right = answer_graph(settings={**settings, "pin": ["0.1", "1.2"]})
    joined = union(left, right)
    assert joined.run.settings["pin"] == ["0.1", "1.2"]
    assert joined.run.total_abs_effect == left.run.total_abs_effect


@pytest.mark.slow
def test_the_gallery(graph: CausalGraph, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    write_run(folder / "one", graph)
    write_run(folder / "two", graph)
    assert thumbnail(graph).count("<rect") == len(graph)
    library = Library(folder)
    try:
        card = library.cards()[0]
    finally:
        library.close()
    assert (card.features, card.outputs) == (len(features_of(graph)), 1)
    runs = runs_in(folder)
    for summed in (False, True):
        shown = comparison(runs["one"], runs["two"], list(runs.values()), summed=summed)
        assert "in both" in shown.html or "shared" in shown.html
        assert "<script>alert" not in shown.html


def test_the_gallery_sums_over_tokens_of_other_prompts(tmp_path: Path) -> None:
    write_run(tmp_path / "one", answer_graph())
    write_run(tmp_path / "two", answer_graph(("<bos>", " All", " Copyright", " (", "C")))
    write_run(tmp_path / "three", answer_graph(("<bos>", "Protected", " (", "C")))
    runs = runs_in(tmp_path)
    shown = comparison(runs["one"], runs["two"], list(runs.values())).html
    assert "summed over tokens: the prompts have 4 and 5 tokens" in html.unescape(shown)
    assert "0.1@1" not in shown
    shown = comparison(runs["one"], runs["three"], list(runs.values())).html
    assert "by position: the prompts differ in 1 of 4 tokens" in html.unescape(shown)
    assert "0.1@1" in shown


def test_annotations(graph: CausalGraph) -> None:
    ends = [str(graph.nodes[0].feature), "answer"]
    marked = Annotations(
        pins=(FeatureId.parse(ends[0]), ANSWER),
        groups=(Group("mine", tuple(features_of(graph)[:2]), folded=True),),
        labels={ANSWER: "where it ends"},
        notes={graph.nodes[0].feature: "here it begins"},
    )
    assert fitting(marked, graph.parts.features) == marked
    drawn = html.unescape(render.svg(graph, annotations=marked)).replace("\xa0", " ")
    assert "where it ends" in drawn
    assert page(graph, annotations=marked)
    assert attribution(graph, annotations=marked).data["qParams"]["pinnedIds"]


def test_neuronpedia_is_asked_of_features_alone(graph: CausalGraph) -> None:
    assert annotate(graph, ask=False) == graph


# -- what is for effects alone ---------------------------------------------------------------------


def test_a_saved_answer_graph_without_effects_has_none_to_draw_from(tmp_path: Path) -> None:
    answer_graph().save(tmp_path)
    with pytest.raises(SaeGraphsError, match="--save-effects"):
        replot(tmp_path, top_k=3)


@pytest.mark.parametrize(
    "asked",
    [
        lambda model: causal_graph(model, PROMPT, outputs=2),
        lambda model: causal_graph(model, PROMPT, per="layer"),
        lambda model: effect_graph(model, PROMPT, nodes=3),
    ],
    ids=["outputs", "per", "nodes"],
)
def test_what_does_not_go_together(
    tiny: InstrumentedModel, asked: Callable[[InstrumentedModel], CausalGraph]
) -> None:
    with pytest.raises(SaeGraphsError, match=r"--select (effect|answer)"):
        asked(tiny)
