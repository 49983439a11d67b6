"""A reader's pins, groups, labels, notes, title and caption, drawn."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, Group
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.boxes import BoxRows, BoxShape
from sae_graphs.render.picture.engine import FOLDER
from sae_graphs.render.picture.remarks import NOTE_LINES, PENCIL, PIN, Remarks, remarks_on
from sae_graphs.render.picture.supernodes import Boxes, supernodes
from tests.render.test_explained import _height, heights
from tests.render.test_picture import SVG, empty, parsed, said
from tests.support import graphs
from tests.support.rich_graphs import (
    HOSTILE,
    graph_of,
    hostile,
    large,
    resolved,
    two_components,
    two_edges,
)
from tests.support.slow import examples

F = FeatureId.parse
LONG = "a text of many words that is longer than any box of a picture is wide, " * 4


def drawn(graph: CausalGraph, annotations: Annotations) -> ElementTree.Element:
    return parsed(render.svg(graph, annotations=annotations))


def tips(root: ElementTree.Element) -> str:
    found = [title.text or "" for title in root.iter(f"{SVG}title")]
    return " ".join("\n".join(found).replace("\xa0", " ").split())


def ids(root: ElementTree.Element) -> set[str]:
    return {str(each.get("id")) for each in root.iter(f"{SVG}g") if each.get("id")}


def chain() -> CausalGraph:
    return graph_of(
        ("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0), ("2.3", "3.4", -1.5), ("0.5", "1.2", 0.75)
    )


# -- one feature -----------------------------------------------------------------------------------


def test_nothing_said_is_nothing_drawn() -> None:
    assert render.dot(chain()) == render.dot(chain(), annotations=NO_ANNOTATIONS)
    assert remarks_on(NO_ANNOTATIONS, F("0.1")) == Remarks()


def test_a_label_stands_where_the_explanation_was() -> None:
    page = FeaturePage("found", "what the site says")
    graph = graph_of(("0.1", "1.2", -8.0), page=page)
    root = drawn(graph, Annotations(labels={F("0.1"): "my own words"}))
    words = said(root)
    assert words.count("what the site says") == 1 and "my own words" in words
    mine = next(t for t in root.iter(f"{SVG}text") if (t.text or "").startswith("my"))
    assert mine.get("font-weight") == "bold"
    assert "label: my own words" in tips(root)
    assert tips(root).count("Neuronpedia: what the site says") == 2
    assert "what a reader takes the feature for" in words


def test_a_pin_has_a_sign_and_a_frame() -> None:
    root = drawn(chain(), Annotations(pins=(F("1.2"),)))
    assert f"{PIN} 1.2" in said(root)
    box = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "node-1.2")
    other = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "node-0.1")
    frames = [
        {path.get("stroke-width") for path in group.iter(f"{SVG}path")} for group in (box, other)
    ]
    assert "2" in frames[0] and "2" not in frames[1]
    assert "pinned by a reader" in said(root) and PIN not in said(parsed(render.svg(chain())))


def test_a_note_is_cut_in_its_box_and_whole_in_its_tooltip() -> None:
    root = drawn(chain(), Annotations(notes={F("1.2"): LONG}))
    box = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "node-1.2")
    lines = [t.text or "" for t in box.iter(f"{SVG}text")]
    start = next(i for i, line in enumerate(lines) if line.startswith(PENCIL))
    assert lines[start + 1].endswith("…") and len(lines) == start + NOTE_LINES
    assert f"note: {' '.join(LONG.split())}" in tips(root)


@pytest.mark.parametrize("sign", [PIN, PENCIL])
@pytest.mark.parametrize("file", ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf"])
def test_signs_are_in_the_fonts_that_come_along(file: str, sign: str) -> None:
    assert ord(sign) in TTFont(FOLDER / file).getBestCmap()


def test_boxes_of_a_layer_stay_of_one_height() -> None:
    graph = graph_of(*((f"0.{i}", "1.0", -1.0 - i) for i in range(6)))
    said_of = Annotations(
        labels={F("0.0"): LONG},
        notes={F("0.1"): LONG, F("0.2"): "short"},
        groups=(Group("of two", (F("0.2"), F("0.3"))),),
    )
    root = drawn(graph, said_of)
    mine = set(heights_of(root, "node-0."))
    assert len(mine) == 1
    bare = heights_of(parsed(render.svg(graph)), "node-0.")
    assert min(mine) > max(bare)


def heights_of(root: ElementTree.Element, start: str) -> list[float]:
    groups = [g for g in root.iter(f"{SVG}g") if (g.get("id") or "").startswith(start)]
    return [_height(group) for group in groups]


def test_boxes_with_less_to_say_are_as_high() -> None:
    graph = two_edges()
    bare = graph_of(("0.1", "2.9", -8.0), promotes=(), suppresses=(), contexts=()).nodes[0]
    assert BoxRows.of(bare, BoxShape()) == BoxRows(prompt=1)
    assert BoxRows.most([BoxRows(1, 0, 3), BoxRows(0, 2, 1)]) == BoxRows(1, 2, 3)
    assert len(set(heights(graph))) == 1


def test_output_tokens_are_annotated_too() -> None:
    graph = graphs.with_outputs()
    end = next(node.feature for node in graph.nodes if node.feature.is_output)
    told = Annotations(pins=(end,), labels={end: "the answer"}, notes={end: "rather likely"})
    words = said(drawn(graph, told))
    assert PIN in words and "the answer" in words and f"{PENCIL} rather likely" in words


# -- groups ----------------------------------------------------------------------------------------


def test_a_group_names_its_members() -> None:
    root = drawn(chain(), Annotations(groups=(Group("brackets", (F("0.1"), F("1.2"))),)))
    words = said(root)
    assert words.count("brackets") == 2
    assert "a group that a reader made" in words and "drawn as one box" not in words
    assert {"node-0.1", "node-1.2"} <= ids(root)


def test_a_folded_group_is_one_box_with_all_its_arrows() -> None:
    folded = Annotations(
        groups=(Group("brackets", (F("1.2"), F("2.3")), folded=True),),
        labels={F("2.3"): "closing"},
    )
    root = drawn(chain(), folded)
    words = said(root)
    assert "brackets" in words and "2 features, layers 1 to 2; 1 arrow inside" in words
    assert "2.3 closing" in words
    assert {"node-0.1", "node-3.4", "group-1"} <= ids(root)
    assert not {"node-1.2", "node-2.3", "edge-1.2-2.3"} & ids(root)
    assert {"edge-0.1-1.2", "edge-0.5-1.2", "edge-2.3-3.4"} <= ids(root)
    for number in ("−8.00 on 1.2", "+0.750 on 1.2", "−1.50 of 2.3"):
        assert number in words
    assert "−7.25" not in words  # no sum is made up
    assert "1.2 -> 2.3: effect +2.00" in tips(root)
    assert "none added up" in words


def test_ticks_and_pins_of_folded_members_are_shown() -> None:
    told = Annotations(pins=(F("1.2"),), groups=(Group("g", (F("1.2"), F("2.3")), folded=True),))
    marks = render.Marks({}, features=frozenset({F("1.2"), F("2.3")}))
    _, inline = render.marked_pictures(chain(), marks, annotations=told)
    assert f"✓ {PIN} 1.2 ✓ 2.3" in said(parsed(inline))


def test_many_members_are_counted() -> None:
    edges = [(f"0.{i}", "1.0", -1.0 - i) for i in range(20)]
    many = Group("many", tuple(F(f"0.{i}") for i in range(20)), folded=True)
    root = drawn(graph_of(*edges), Annotations(groups=(many,)))
    assert "… and 12 more 20 features, layer 0; no arrows inside" in said(root)
    assert "0.19" in tips(root)


def test_a_group_of_features_and_output_tokens_counts_members() -> None:
    graph = graphs.with_outputs()
    end = next(edge for edge in graph.edges if edge.target.is_output)
    outputs = tuple({edge.target for edge in graph.edges if edge.target.is_output})
    both = Annotations(groups=(Group("g", (end.source, end.target), folded=True),))
    assert "2 members, layers" in said(drawn(graph, both))
    ends = Annotations(groups=(Group("g", outputs, folded=True),))
    assert f"{len(outputs)} output token" in said(drawn(graph, ends))


def test_where_a_folded_group_stands() -> None:
    graph = chain()
    names = tuple(map(F, ("0.1", "1.2", "2.3", "3.4")))
    for members, layer in ((names[:1], "0"), (names[1:3], "2"), (names, "3")):
        (found,) = supernodes(graph, Annotations(groups=(Group("g", members, folded=True),)))
        assert found.layer == layer
    (resolved_one,) = supernodes(
        graph_of(("0.1@1", "1.2@2", -1.0), ("0.1@1", "1.3@3", -1.0)),
        Annotations(groups=(Group("g", (F("1.2@2"), F("1.3@3")), folded=True),)),
    )
    assert resolved_one.position == 3
    assert supernodes(graph, Annotations(groups=(Group("g", (F("0.1"),)),))) == ()


def test_arrows_that_lead_down_do_not_turn_layers_around() -> None:
    spans = Annotations(groups=(Group("ends", (F("0.1"), F("2.3"), F("3.4")), folded=True),))
    graph = chain()
    boxes = Boxes(supernodes(graph, spans))
    assert {
        str(edge): boxes.upwards(edge, graph) for edge in graph.edges if not boxes.hides(edge)
    } == {"0.1 -> 1.2 (-8)": False, "1.2 -> 2.3 (+2)": True, "0.5 -> 1.2 (+0.75)": True}
    root = drawn(graph, spans)
    assert {"edge-0.1-1.2", "edge-1.2-2.3", "edge-0.5-1.2"} <= ids(root)


def test_a_group_across_components_keeps_their_arrows() -> None:
    graph = two_components()
    both = Annotations(groups=(Group("both", (F("1.2"), F("1.5")), folded=True),))
    root = drawn(graph, both)
    assert {f"edge-{edge.source}-{edge.target}" for edge in graph.edges} <= ids(root)
    files = render.files(graph, ["svg"], annotations=both)
    assert "group-1" in ids(parsed(files["graph-2.svg"].decode()))


GRAPHS: list[Callable[[], CausalGraph]] = [
    two_components,
    hostile,
    lambda: resolved(24, hostile_text=True),
    graphs.with_outputs,
    lambda: graph_of(*((f"0.{i}", f"1.{i}", -1.0 - i) for i in range(9))),
    lambda: large(5, 8),
]
TEXTS = st.sampled_from([*(text for text in HOSTILE if text.strip()), LONG, "word"])


@examples(12)
@given(st.sampled_from(GRAPHS), st.data())
def test_any_annotations_are_drawn_with_every_arrow(
    make: Callable[[], CausalGraph], data: st.DataObject
) -> None:
    graph = make()
    features = data.draw(st.permutations([node.feature for node in graph.nodes]))
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=3))
    groups = []
    for number, size in enumerate(sizes):
        members = tuple(features[5 * number : 5 * number + size])
        name = f"{number} {data.draw(TEXTS)}"
        groups += [Group(name, members, data.draw(st.booleans()))] if members else []
    told = Annotations(
        title=data.draw(TEXTS),
        caption=data.draw(TEXTS),
        note=data.draw(TEXTS),
        pins=tuple(features[:2]),
        groups=tuple(groups),
        labels={feature: data.draw(TEXTS) for feature in features[1:4]},
        notes={feature: data.draw(TEXTS) for feature in features[2:5]},
    )
    root = drawn(graph, told)
    assert not list(root.iter(f"{SVG}script"))
    for edge in graph.edges:
        ends = told.group_of(edge.source), told.group_of(edge.target)
        hidden = ends[0] is not None and ends[0] is ends[1] and ends[0].folded
        assert (f"edge-{edge.source}-{edge.target}" in ids(root)) != hidden


# -- the whole picture -----------------------------------------------------------------------------


def test_title_caption_and_note_frame_the_picture() -> None:
    told = Annotations(title="Our title", caption=LONG, note="seen once")
    root = drawn(two_edges(), told)
    texts = [
        (float(t.get("y") or 0), (t.text or "").replace("\xa0", " "))
        for t in root.iter(f"{SVG}text")
    ]
    high = {text: y for y, text in texts}
    lines = [y for y, text in texts if "text of many words" in text]
    boxes = [y for y, text in texts if text.startswith("active ")]
    assert high["Our title"] < min(boxes) < max(boxes) < min(lines) < high[f"{PENCIL} seen once"]
    assert "Causal graph" not in high
    assert "Ours" in said(parsed(render.svg(two_edges(), title="Ours", annotations=told)))


@pytest.mark.slow
def test_every_format_takes_annotations() -> None:
    told = Annotations(title="Our title", pins=(F("0.1"),))
    for name, data in render.files(two_components(), render.FORMATS, annotations=told).items():
        assert len(data) > 1000, name
        if name.endswith("svg"):
            assert "Our title" in said(parsed(data.decode())), name
    assert "Our title: Graph 2 of 2" in said(
        parsed(render.files(two_components(), ["svg"], annotations=told)["graph-2.svg"].decode())
    )


def test_what_is_said_of_the_whole_graph_stands_below_its_picture_alone() -> None:
    told = Annotations(caption="a caption", note="a note", pins=(F("0.4"),))
    files = render.files(two_components(), ["svg"], annotations=told)
    words = {name: said(parsed(data.decode())) for name, data in files.items()}
    for text in ("a caption", "a note"):
        assert [name for name in sorted(words) if text in words[name]] == ["graph.svg"]
    assert PIN in words["graph-2.svg"]


def test_an_empty_graph_has_its_caption() -> None:
    assert "a caption" in said(drawn(empty(), Annotations(caption="a caption")))


def test_marked_pictures_are_annotated() -> None:
    pictures, inline = render.marked_pictures(
        two_edges(), render.Marks({}), annotations=Annotations(labels={F("0.1"): "mine"})
    )
    assert "mine" in inline and b"mine" in pictures["svg"]
    titled, _ = render.marked_pictures(
        two_edges(), render.Marks({}), annotations=Annotations(title="Ours")
    )
    assert "Ours" in said(parsed(titled["svg"].decode()))


@pytest.mark.slow
def test_what_is_said_of_hidden_features_brings_them_out() -> None:
    graph = large(5, 14)  # 70 boxes: more than a picture has
    weak = F("0.0")
    assert f"node-{weak}" not in ids(drawn(graph, NO_ANNOTATIONS))
    assert f"node-{weak}" in ids(drawn(graph, Annotations(pins=(weak,))))
    _, marked = render.marked_pictures(graph, render.Marks({}, features=frozenset({weak})))
    assert f"node-{weak}" in ids(parsed(marked))
