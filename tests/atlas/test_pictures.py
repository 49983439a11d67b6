"""The pictures of an atlas: what recurs is drawn, and what is not common enough is not."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.pictures import circuit_source, draw_circuit, draw_map, map_figure
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from tests.atlas.test_asking import GRAPHS
from tests.support.atlases import atlas_by_hand


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return Atlas(atlas_by_hand(tmp_path_factory.mktemp("drawn") / "made", GRAPHS))


def test_a_circuit_has_what_is_common(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Atlas, "prompts", None)  # a million rows, only to be counted
    everywhere = circuit_source(atlas, share=0.9)
    assert '"0.1" -> "1.2"' in everywhere and '"0.3"' not in everywhere
    left = circuit_source(atlas, category="left", share=0.9)
    assert (
        '"0.3" -> "1.4" [id="edge-0" color="#d92626" arrowhead=normal' in left
        and '"0.5"' not in left
    )
    right = circuit_source(atlas, category="right", share=0.9)
    assert (
        '"0.5" -> "1.6" [id="edge-1" color="#1d5fd6" arrowhead=tee' in right
        and 'label="100%"' in right
    )
    drawn = draw_circuit(atlas, tmp_path / "circuit.svg", category="left")
    text = "".join(ElementTree.parse(drawn).getroot().itertext())
    assert "0.3" in text and "Edges in at least 20% of 6 prompts: left" in text.replace("\xa0", " ")


def test_a_circuit_names_the_tokens_of_its_own_prompts(tmp_path: Path) -> None:
    edge = ("0.1@0", "1.2@1", -1.0)
    graphs = {
        **{f"red {n}": ("left", [edge]) for n in "abc"},
        **{f"blue {n}": ("right", [edge]) for n in ["aa", "cb"]},
        "green a": ("right", [edge]),
    }
    made = Atlas(atlas_by_hand(tmp_path / "made", graphs))
    for category, tokens in {
        None: ["red", "blue", "green"],
        "left": ["red"],
        "right": ["blue", "green"],
    }.items():
        said = " ".join(f"&quot;{token}&quot;" for token in tokens)
        assert rf'label="0.1\n{said}"' in circuit_source(made, category=category)
    assert made.tokens_of("0.1").equals(made.tokens_of([FeatureId("0", 1)]))
    assert made.tokens_of(["1.2"], category="right").values.tolist() == [
        ["1.2", "a", 1],
        ["1.2", "aa", 1],
        ["1.2", "cb", 1],
    ]


def test_hostile_tokens_stay_text(tmp_path: Path) -> None:
    link = ("0.1@0", "1.2@0", -1.0)
    graphs = {'"]\\[<b>&lt;\x00 x': ("<script>", [link])}
    made = Atlas(atlas_by_hand(tmp_path / "made", graphs))
    drawn = draw_circuit(made, tmp_path / "circuit.svg", category="<script>")
    root = ElementTree.parse(drawn).getroot()
    assert not [each for each in root.iter() if each.tag.endswith("script")]
    assert '"]\\[<b>&lt;' in "".join(root.itertext())


def test_a_map_names_the_categories(atlas: Atlas, tmp_path: Path) -> None:
    drawn = draw_map(atlas, tmp_path / "map.svg")
    assert drawn.read_text().count("<path") > 12
    assert draw_map(atlas, tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_every_category_is_in_the_legend(tmp_path: Path) -> None:
    graphs = {
        f"{n} x": (("_a", "$b$", "c")[n % 3], [(f"0.{n}@0", "1.2@0", -1.0)]) for n in range(6)
    }
    figure = map_figure(Atlas(atlas_by_hand(tmp_path / "made", graphs)))
    (legend,) = figure.legends
    assert [each.get_text() for each in legend.get_texts()] == [r"\$b\$", "\u200b_a", "c"]


def test_mistakes(atlas: Atlas, tmp_path: Path) -> None:
    for words, tried in {
        "ends in .svg": lambda: draw_map(atlas, tmp_path / "map.bmp"),
        "share is 0": lambda: circuit_source(atlas, share=0),
        "no category 'sort'; the atlas has kind": lambda: draw_map(
            atlas, tmp_path / "map.svg", by="sort"
        ),
        "no prompt has kind 'up'": lambda: circuit_source(atlas, category="up"),
    }.items():
        with pytest.raises(SaeGraphsError, match=words):
            tried()
    lone = Atlas(atlas_by_hand(tmp_path / "made", {f"{n}": ("a", []) for n in range(3)}))
    with pytest.raises(SaeGraphsError, match="no edge is in 20% of 3 prompts; give a smaller"):
        circuit_source(lone)
