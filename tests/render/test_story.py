"""The picture of an answer graph: by token and layer, and readable where it is shown."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render import pictures as render
from sae_graphs.render.marks import Marks, Standing
from tests.support.answer_graphs import answer_graph, hostile_answers
from tests.support.once import drawn_anew
from tests.support.slow import first

README_WIDTH = 900  # pixels
LEAST_TYPE = 9.0  # pixels there


def places(graph: CausalGraph) -> dict[str, tuple[float, float]]:
    """Where the source puts each box, by name."""
    source = render.dot(graph)
    found = {}
    for name in [*map(str, (node.feature for node in graph.nodes))]:
        at = re.search(rf'"?{re.escape(name)}"? \[[^\n]*?pos="([-\d.]+),([-\d.]+)"', source)
        assert at is not None, name
        found[name] = (float(at[1]), float(at[2]))
    return found


def said(svg: str) -> str:
    shown = " ".join(text for text in ET.fromstring(svg).itertext() if text.strip())
    return shown.replace("\u00a0", " ")


def test_features_stand_above_their_tokens_and_below_the_answer() -> None:
    graph = answer_graph()
    at = places(graph)
    for node in graph.nodes:
        for other in graph.nodes:
            if None in (node.feature.position, other.feature.position):
                continue
            if node.feature.position < other.feature.position:  # type: ignore[operator]
                assert at[str(node.feature)][0] < at[str(other.feature)][0]
    for edge in graph.edges:
        assert at[str(edge.source)][1] < at[str(edge.target)][1]
    assert at["answer"][1] == max(y for _, y in at.values())


def test_boxes_say_what_they_mean_what_they_do_and_their_name() -> None:
    text = said(render.svg(answer_graph()))
    for words in ("supports by 3.00 nats", "opposes by 0.500 nats", "relay, 1.00 nats", "0.1@1"):
        assert words in text, words
    assert "What ) hangs on" in text and "log-odds 4.00" in text


def test_weak_features_have_small_boxes_and_opposers_another_frame() -> None:
    source = render.dot(answer_graph())
    label = {
        name: re.search(rf'"{re.escape(name)}" \[(.*?)\n', source)[1]  # type: ignore[index]
        for name in ("0.1@1", "0.7@2", "1.4@3")
    }
    assert 'STYLE="ROUNDED"' in label["0.1@1"] and 'STYLE="DASHED"' in label["0.7@2"]
    width = {name: float(re.search(r"width=([\d.]+)", text)[1]) for name, text in label.items()}  # type: ignore[index]
    assert width["0.7@2"] < width["0.1@1"] and width["1.4@3"] < width["0.1@1"]


def test_text_is_readable_at_the_width_of_a_page() -> None:
    for graph in (answer_graph(), long_prompt()):
        svg = render.svg(graph)
        size = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ', svg)
        assert size is not None
        shrunk = min(README_WIDTH / (float(size[1]) * 96 / 72), 1.0)
        types = {float(found) for found in re.findall(r'font-size="([\d.]+)"', svg)}
        assert min(types) * 96 / 72 * shrunk >= LEAST_TYPE


def long_prompt() -> CausalGraph:
    tokens = ["<bos>", "Copyright", " (", "C", *(f" word{number}" for number in range(80))]
    return answer_graph(tokens, read_position=83)


def test_quiet_tokens_take_little_room() -> None:
    text = said(render.svg(long_prompt()))
    assert "word0" in text and "word79" in text and "word40" not in text
    at = places(long_prompt())
    assert max(x for x, _ in at.values()) < 900


def test_a_readers_label_comes_first() -> None:
    feature = FeatureId.parse("0.1@1")
    told = Annotations(labels={feature: "my own words"}, pins=(feature,), caption="Seen.")
    text = said(render.svg(answer_graph(), annotations=told))
    assert "my own words" in text and "★" in text and "Seen." in text


def test_what_was_tested_is_ticked() -> None:
    graph = answer_graph()
    marks = Marks(
        {1: Standing(True, "necessary, q = 0.01")},
        features=frozenset({FeatureId.parse("0.1@1")}),
        edges=frozenset({(FeatureId.parse("0.1@1"), FeatureId.parse("1.2@1"))}),
        subtitle=("tested",),
    )
    pictures, inline = render.marked_pictures(graph, marks)
    text = said(pictures["svg"].decode())
    assert "necessary, q = 0.01" in text and text.count("✓") >= 3 and "tested" in text
    assert "hangs on" not in said(inline)


def test_hostile_text_is_drawn_as_text() -> None:
    graph = hostile_answers()
    svg = render.svg(graph)
    ET.fromstring(svg)
    assert "<script" not in svg and places(graph).keys() == {str(n.feature) for n in graph.nodes}


def test_graphs_without_positions_and_folded_groups_keep_their_layers() -> None:
    graph = answer_graph()
    assert "layout=nop2" in render.dot(graph)
    assert "layout=nop2" not in render.dot(graph.summed("all"))
    fold = Group("both", (FeatureId.parse("0.1@1"), FeatureId.parse("1.2@1")), folded=True)
    assert "layout=nop2" not in render.dot(graph, annotations=Annotations(groups=(fold,)))


def test_a_graph_whose_features_lead_nowhere_is_drawn() -> None:
    graph = answer_graph()
    bare = replace(graph, edges=())
    assert "supports" in said(render.svg(bare))
    assert "No feature" in said(render.svg(replace(graph, nodes=(), edges=())))


@pytest.mark.parametrize("kind", first(1, ["svg", "png", "pdf"]))
def test_pictures_are_the_same_each_time(kind: str) -> None:
    one, two = (drawn_anew(lambda: render.drawn_as(answer_graph(), kind)) for _ in range(2))
    if kind != "pdf":  # which holds the time
        assert one == two
    assert len(one) > 1000


def test_the_header_names_the_tokens_of_support_and_what_is_left_out() -> None:
    text = said(render.svg(answer_graph()))
    assert "Strongest support, by a feature at “Copyright” (3.00 nats), “C” (2.00)" in text
    assert (
        "left out, since they are on at many tokens of any text (dense):" in text
        and "3.5@3 +6.00" in text
    )
    graph = answer_graph()
    assert graph.run.answer is not None
    run = replace(graph.run, answer=replace(graph.run.answer, dense=()))
    assert "dense" not in said(render.svg(assemble(run, graph.nodes, graph.edges)))
