"""Pictures of graphs with token positions, output tokens, anatomies and sources of features."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby, product
from typing import Any

import pygraphviz
import pytest

from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy, BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.names import (
    anatomy_words,
    counted_nodes,
    largest_activation,
    name_of,
    output_words,
    share_of,
    shares_words,
    strongest_part,
)
from sae_graphs.graph.records import Context, Edge, OutputToken
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.arrange import groups_of
from sae_graphs.render.picture.header import settings_words
from sae_graphs.render.picture.strips import strip
from sae_graphs.render.picture.tooltips import _context_line
from sae_graphs.render.style import SHADES
from tests.render.test_picture import SVG, parsed, said
from tests.support import graphs
from tests.support.rich_graphs import HOSTILE, graph_of, node, record, resolved, two_edges
from tests.support.slow import first, only


def titles(graph: CausalGraph) -> list[str]:
    """All tooltips, spaces made ordinary."""
    found = [title.text or "" for title in parsed(render.svg(graph)).iter(f"{SVG}title")]
    return [text.replace("\xa0", " ") for text in found]


def title_of(graph: CausalGraph, start: str) -> str:
    return next(text for text in titles(graph) if text.startswith(start))


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("boxes", "seed"), only(product([14, 40], range(4)), (14, 0)))
def test_boxes_of_a_layer_follow_the_prompt(boxes: int, seed: int) -> None:
    graph = resolved(boxes, seed=seed)
    drawing = pygraphviz.AGraph(string=render.dot(graph))
    drawing.layout(prog="dot")
    across = {name: float(name.attr["pos"].split(",")[0]) for name in drawing.nodes()}
    high = {name: float(name.attr["pos"].split(",")[1]) for name in drawing.nodes()}
    for group in groups_of(graph):
        for rank in group.ranks:
            names = [str(each.feature) for each in rank.nodes]
            assert len({high[name] for name in names}) == 1
            drawn = sorted(rank.nodes, key=lambda each: across[str(each.feature)])
            places = [each.feature.position or 0 for each in drawn]
            assert places == sorted(places)
            left = across[f"layer {rank.label} of {group.number}"]
            assert left < min(across[name] for name in names)


def test_a_box_names_its_position_and_token() -> None:
    words = said(parsed(render.svg(graphs.resolved())))
    assert "1.2@1 ↗ Copyright active 0.500" in words
    assert "1.2@2 ↗ ␣( inactive" in words
    assert "0.1@1: feature 0.1 at token 1, counted from 0 and framed in its box" in words
    assert "change of the target's activation at its own token" in words
    assert "each feature ablated at one token at a time, never the first" in words
    assert "counted from 0" not in said(parsed(render.svg(two_edges())))


def test_the_token_of_a_box_is_framed_and_shown() -> None:
    tokens, values = [f" word{i}" for i in range(40)], [0.0] * 39 + [3.0]
    pieces = strip(tokens, values, largest=3.0, width=30, focus=5)
    assert [piece.text.strip("\xa0") for piece in pieces if piece.framed] == ["word5"]
    assert not any(piece.framed for piece in strip(tokens, values, largest=3.0, width=30))
    short = strip(["a", "b", "c"], [0.0, 0.0, 0.0], largest=1.0, width=30, focus=1)
    assert [(piece.text, piece.framed) for piece in short] == [("a", 0), ("b", 1), ("c", 0)]


def test_negative_activations_are_shaded_by_their_size() -> None:
    tokens, values = ["a", "b", "c"], [0.5, -2.0, 1.0]
    pieces = strip(tokens, values, largest=2.0, width=30)
    same = strip(tokens, [abs(value) for value in values], largest=2.0, width=30)
    assert pieces == same and pieces[1].step == SHADES
    far = [f" word{i}" for i in range(40)]
    shown = strip(far, [1.0] + [0.0] * 38 + [-3.0], largest=3.0, width=30)
    assert "word39" in shown[-1].text
    of_one = node("0.1", activations=(0.0, -0.5), contexts=(Context(("x",), (-4.0,)),))
    assert largest_activation(of_one) == 4.0
    assert _context_line(of_one.contexts[0]) == "x  (−4.00)"


def test_where_a_position_was_read_and_summed() -> None:
    each: dict[str, Any] = {"ablate": "each"}
    said_of: dict[str, dict[str, Any]] = {
        "each feature ablated at one token at a time, never the first": each,
        "each feature ablated at one token at a time": {**each, "ablate_first": True},
        "each feature ablated at one token at a time, never the first, read at every token": {
            **each,
            "read": "all",
        },
    }
    for words, settings in said_of.items():
        assert settings_words(settings) == words
    assert "effects summed over source tokens, target token 3" in settings_words({"summed_at": 3})
    flat = said(parsed(render.svg(graphs.resolved().summed("all"))))
    assert "effects summed over source and target tokens" in flat
    assert "at any token, all added up" in flat
    flat = said(parsed(render.svg(graphs.resolved().summed())))
    assert "at token 3, added up over sources" in flat


# -- output tokens ---------------------------------------------------------------------------------


def test_paths_end_in_words() -> None:
    graph = graphs.with_outputs()
    words = said(parsed(render.svg(graph)))
    assert "␣) 75% logit 12.5 out.340" in words
    assert "↵ - C 12% logit difference 9.00 out.7" in words
    assert "2 features and 2 output tokens" in words
    assert "next token" in words
    assert "the difference of their clean logits" in words
    assert title_of(graph, "output token ") == (
        'output token out.7 "↵" - "C"\nclean probability 12%\nclean logit difference 9.00'
    )
    edge = title_of(graph, '3.6 -> out.340 " )"')
    assert "ablating the source lowers the logit: it promotes it" in edge
    page = render.html(graph)
    assert "which promotes out.340 &quot; )&quot; (-1.5)" in page
    assert "<summary>Output tokens</summary>" in page
    assert "Output tokens" not in render.html(two_edges())


def test_an_output_token_after_an_earlier_token() -> None:
    run = graphs.resolved().run
    early = replace(graphs.output_node("out.340@2", run), activation=-1.5)
    edge = Edge(FeatureId("3", 6, 1), early.feature, -2.0)
    graph = assemble(run, [node("3.6@1"), early], [edge])
    assert "␣) after ␣( logit −1.50 out.340@2" in said(parsed(render.svg(graph)))
    assert title_of(graph, "output token ").splitlines() == [
        'output token out.340@2 " )"',
        "as what follows token 2, ␣(",
        "clean logit −1.50",
    ]
    assert graph.summed("all")["out.340"].activation == 12.5
    assert graph.summed(2)["out.340"].activation == -1.5


def test_estimates_are_called_so() -> None:
    assert settings_words({"method": "exact"}) == ""
    assert settings_words({"method": "gradient"}) == "effects estimated from gradients"
    estimated = settings_words({"method": "integrated-gradients", "steps": 8})
    assert estimated == "effects estimated from integrated gradients in 8 steps"


def test_the_legend_of_outputs_without_contrast() -> None:
    graph = graphs.with_outputs()
    outputs = tuple(replace(output, contrast=None) for output in graph.run.outputs)
    words = said(parsed(render.svg(replace(graph, run=replace(graph.run, outputs=outputs)))))
    assert "with its clean probability and logit; the effect on it is its logit's" in words


def test_an_output_without_arrows_is_said_so() -> None:
    page = render.html(graphs.resolved())
    assert page.count("no arrow kept") == 1


def test_output_tokens_are_level_and_on_top() -> None:
    (group,) = groups_of(graphs.with_outputs())
    assert [rank.label for rank in group.ranks] == ["out", "3", "2"]
    assert group.ranks[0].layer is None


def test_names() -> None:
    run = graphs.with_outputs().run
    assert name_of(run, FeatureId("2", 5, 1)) == "2.5@1"
    assert name_of(run, FeatureId("out", 340, 3)) == 'out.340@3 " )"'
    assert output_words(OutputToken(1, "a" * 50, 1.0, 0.5, "b" * 50), 13) == "aaaa… - bbbb…"
    assert output_words(OutputToken(1, "a" * 50, 1.0, 0.5, "b"), 13) == "aaaaaaaa… - b"
    assert counted_nodes(graphs.resolved().nodes) == "8 features and 1 output token"


# -- anatomies, and where features come from -------------------------------------------------------


def test_anatomies_in_words() -> None:
    assert anatomy_words(Anatomy(-1.0, (BlockAnatomy(2, -2.0, 1.0),))) == (
        "attention 2 100%, skip 50%, mlp 2 −50%"
    )
    assert anatomy_words(Anatomy(0.0, ())) == "nothing"
    cancelled = Anatomy(-5.0, (BlockAnatomy(0, 5.0, 0.125),))
    assert anatomy_words(cancelled) == "skip −5.00, attention 0 +5.00, mlp 0 +0.125"
    assert share_of(-5.0, cancelled) == ""
    many = Anatomy(1.0, tuple(BlockAnatomy(n, 1.0, 1.0) for n in range(5)))
    assert anatomy_words(many).endswith(", 5 smaller parts")
    assert strongest_part(Anatomy(-5.0, (BlockAnatomy(0, 1.0, 2.0, (3.0, -2.0)),))) == "mlp 0"
    heads = BlockAnatomy(3, -2.0, 1.0, (1.0, -3.0))
    assert strongest_part(Anatomy(0.0, (BlockAnatomy(0, 1.0, 0.0), heads))) == "attention 3, head 1"
    assert strongest_part(Anatomy(1.0, ())) == ""
    assert shares_words(BlockShare("mlp", n, -0.5) for n in range(4)) == (
        "mlp 0 (−50%), mlp 1 (−50%), mlp 2 (−50%)"
    )


def test_anatomies_are_in_the_tooltips_and_the_page() -> None:
    graph = graphs.with_outputs()
    edge = title_of(graph, "2.5 -> 3.6: effect −2.00")
    assert edge.splitlines()[2:] == [
        "pre-activation −2.00: skip 50%, attention 2 38%, mlp 2 12%",
        "strongest: attention 2, head 0",
    ]
    page = render.html(graph)
    assert "<td>skip 50%, attention 2 38%, mlp 2 12%</td>" in page
    assert "<td>attention 3 (62%), embedding (25%)</td><td>mlp 5 (38%)</td>" in page
    bare = render.html(two_edges())
    assert "Through" not in bare
    assert "Where features come from" not in bare


def test_the_page_says_why_there_is_no_anatomy() -> None:
    graph = graphs.with_outputs()
    layers = tuple(replace(layer, no_anatomy="<gated>") for layer in graph.run.layers)
    page = render.html(replace(graph, run=replace(graph.run, layers=layers)))
    assert "<p>no anatomy from layer 3: &lt;gated&gt;</p>" in page
    assert "no anatomy" not in render.html(graph)


def test_tooltips_tell_who_wrote_and_who_scrubs() -> None:
    lines = title_of(graphs.resolved(), "1.2@1:").splitlines()
    assert lines[:3] == [
        "1.2@1: activation 0.500 at token 1, Copyright",
        "written by attention 3 (62%), embedding (25%)",
        "erased by mlp 5 (38%)",
    ]
    assert "written by" not in "".join(titles(two_edges()))


# -- hostile text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", first(4, HOSTILE))
def test_hostile_output_tokens_are_drawn_as_text(text: str) -> None:
    output = OutputToken(3, text, 1.0, 0.5, contrast=text)
    run = record((text,) * 4, outputs=(output,), settings={"ablate": "each"})
    ends = FeatureId("3", 6, 1), FeatureId("out", 3, 3)
    made = [node("3.6@1"), graphs.output_node("out.3@3", run)]
    graph = assemble(run, made, [Edge(*ends, -2.0)])
    picture = render.svg(graph)
    assert not list(parsed(picture).iter(f"{SVG}script"))
    page = render.html(graph)
    assert page.count("<script") == 2  # its data, and its own
    assert not {"\x00", "\x1b", "\u202e", "\u200f", "\ud83d"} & set(picture + page)


def test_hostile_prompts_with_positions_reach_every_format() -> None:
    for name, content in render.files(resolved(14, hostile_text=True), render.FORMATS).items():
        assert len(content) > 1000, name


def test_components_with_positions_have_their_own_pictures() -> None:
    graph = graph_of(("0.1@1", "1.2@2", -8.0), ("0.4@1", "1.5@3", -2.0), ("0.4@1", "1.6@2", 1.0))
    drawn = render.files(graph, ["svg"])
    assert sorted(drawn) == ["graph-1.svg", "graph-2.svg", "graph.svg"]
    second = said(parsed(drawn["graph-2.svg"].decode()))
    assert re.search(r"1\.6@2 .* 1\.5@3", second)


def test_ranks_are_grouped_by_position() -> None:
    for group in groups_of(resolved(40)):
        for rank in group.ranks:
            places = [nodes[0].feature.position for nodes in rank.by_position]
            assert places == [place for place, _ in groupby(places)]
            assert [n for nodes in rank.by_position for n in nodes] == list(rank.nodes)
