"""One SAE a layer: chosen by pattern, or refused with the choices there are."""

from __future__ import annotations

import pytest

from sae_graphs.errors import SAELoadError
from sae_graphs.model.stream import StreamPoint
from sae_graphs.pretrained.releases import ListedSAE
from sae_graphs.pretrained.sae_pattern import choose
from tests.support.stacks import one_line


def listed(*ids: str, layers: int = 2) -> list[ListedSAE]:
    """Each id at every layer, `#` standing for the layer's number."""
    return [
        ListedSAE(text.replace("#", str(layer)), "", StreamPoint(layer, "post"))
        for layer in range(layers)
        for text in ids
    ]


def ids(saes: list[ListedSAE]) -> list[str]:
    return [sae.sae_id for sae in saes]


def test_no_pattern_is_needed_where_there_is_one_a_layer() -> None:
    saes = listed("layer#")
    assert choose(saes, None, "some") == saes


def test_a_pattern_chooses() -> None:
    saes = listed("layer_#/width_16k/canonical", "layer_#/width_65k/canonical")
    chosen = choose(saes, "layer_{layer}/width_65k/canonical", "some")
    assert ids(chosen) == ["layer_0/width_65k/canonical", "layer_1/width_65k/canonical"]
    assert ids(choose(saes, "*16k*", "some"))[0] == "layer_0/width_16k/canonical"


def test_one_sae_may_be_left_out_of_a_layer() -> None:
    """A layer that has no such SAE is a gap in the stack, and is no mistake."""
    saes = [*listed("layer_#/a", layers=3), *listed("layer_#/b", layers=2)]
    assert ids(choose(saes, "layer_{layer}/b", "some")) == ["layer_0/b", "layer_1/b"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(70, ["layer_0/l0_63", "layer_1/l0_68"]), (200, ["layer_0/l0_120", "layer_1/l0_72"]),
     (1, ["layer_0/l0_20", "layer_1/l0_68"])],
)  # fmt: skip
def test_the_number_closest(asked: int, expected: list[str]) -> None:
    names = [(0, 20), (0, 63), (0, 120), (1, 68), (1, 72)]
    saes = [
        ListedSAE(f"layer_{layer}/l0_{l0}", "", StreamPoint(layer, "post")) for layer, l0 in names
    ]
    assert ids(choose(saes, "layer_{layer}/l0_{l0:" + str(asked) + "}", "some")) == expected


def test_of_two_numbers_as_close_the_smaller() -> None:
    saes = listed("layer_#/l0_80", "layer_#/l0_60")
    assert ids(choose(saes, "layer_{layer}/l0_{l0:70}", "some")) == [
        "layer_0/l0_60",
        "layer_1/l0_60",
    ]


def test_a_star_leaves_the_number_whole() -> None:
    """`226` is not read as `22` and `6`."""
    names = [(0, 66), (0, 226), (1, 64), (1, 170)]
    saes = [
        ListedSAE(f"layer_{layer}/l0_{l0}", "", StreamPoint(layer, "post")) for layer, l0 in names
    ]
    assert ids(choose(saes, "*{l0:70}", "some")) == ["layer_0/l0_66", "layer_1/l0_64"]


@pytest.mark.parametrize("pattern", ["*" * 30 + "x", "{l0:" + "9" * 5000 + "}", "*a" * 40 + "x"])
def test_patterns_that_would_take_for_ever(pattern: str) -> None:
    with pytest.raises(SAELoadError) as caught:
        choose(listed("layer_#/" + "a" * 60), pattern, "some")
    one_line(caught)


def test_two_widths_at_the_same_distance_are_ambiguous() -> None:
    saes = listed("layer_#/width_16k/average_l0_60", "layer_#/width_65k/average_l0_60")
    with pytest.raises(SAELoadError, match="several SAEs a layer") as caught:
        choose(saes, "layer_{layer}/*/average_l0_{l0:70}", "some")
    assert "width_16k" in one_line(caught)


def test_the_choices_are_listed() -> None:
    saes = [*listed("layer_#/width_16k/average_l0_7", layers=3), *listed("layer_#/width_65k/c")]
    with pytest.raises(SAELoadError) as caught:
        choose(saes, None, "some-release")
    text = one_line(caught)
    assert text.startswith("some-release holds several SAEs a layer")
    first = text.index("'layer_{layer}/width_16k/average_l0_{l0:70}' (3 SAEs)")
    assert first < text.index("'layer_{layer}/width_65k/c' (2 SAEs)")


@pytest.mark.parametrize("pattern", ["layer_{layer}/width_32k", "layer_{layer}", "width_16k", "x"])
def test_nothing_fits(pattern: str) -> None:
    with pytest.raises(SAELoadError, match="no SAE is called like") as caught:
        choose(listed("layer_#/width_16k", "layer_#/width_65k"), pattern, "some")
    assert "'layer_{layer}/width_16k' (2 SAEs)" in one_line(caught)


@pytest.mark.parametrize("pattern", ["layer_{}/a", "{layer}{width}", "{layer:3}", "{a:1}{b:2}"])
def test_a_pattern_that_means_nothing(pattern: str) -> None:
    with pytest.raises(SAELoadError, match="means nothing; expected") as caught:
        choose(listed("layer_#/a"), pattern, "some")
    one_line(caught)


def test_a_pattern_is_no_regular_expression() -> None:
    with pytest.raises(SAELoadError, match="no SAE is called like"):
        choose(listed("layer_#/a.b"), "layer_{layer}/a.*c|.*", "some")
    assert ids(choose(listed("layer_#/a.b", "layer_#/aXb"), "layer_{layer}/a.b", "s")) == [
        "layer_0/a.b",
        "layer_1/a.b",
    ]
