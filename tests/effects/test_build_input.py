"""What `causal_graph` is asked: options that fit or not, prompts of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.stream import parse_layers
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.models import CONTEXT, PROMPT, STACKS, random_stack
from tests.support.slow import first

# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": -3}, "top_k is -3"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_k": "8"}, "top_k is '8'"),
        ({"top_k": True}, "top_k is True"),
        ({"min_path_edges": 0}, "min_path_edges is 0"),
        ({"min_path_edges": 4}, "allow paths of at most 3"),
        ({"min_path_edges": 2, "layers": ("1", "2")}, "allow paths of at most 1"),
        ({"per": "row"}, "per is 'row'"),
        ({"ablate": "some"}, "ablate is 'some'"),
        ({"read": 10}, "0 to 9"),
        ({"read": -11}, "outside the prompt of 10 tokens"),
        ({"read": 1.5}, "read is 1.5"),
        ({"read": "last"}, "read is 'last'"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": 2**70}, "expected 0 to"),
        ({"seed": -1}, "expected 0 to"),
        ({"pin": 3.5}, "not a feature: 3.5"),
        ({"layers": ("2", "1")}, "lower one first"),
        ({"layers": ("1", "1")}, "fewer than two"),
        ({"layers": ("0", "4")}, "no SAE layer '4'"),
        ({"layers": "0-2"}, "expected first:last"),
        ({"layers": 3}, "expected first:last"),
        ({"pin": ("five",)}, "not a feature: 'five'"),
        ({"pin": ("7.1",)}, "no SAE layer '7'"),
        ({"pin": ("1.40",)}, "features 0 to 39"),
        ({"pin": ("3.1",)}, "last layer"),
        ({"pin": ("1.1@2",)}, "leave the position out"),
        ({"pin": ("0.1",), "layers": ("1", "3")}, "no SAE layer '0'"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_wrong_options(tiny: InstrumentedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message) as caught:
        effect_graph(tiny, PROMPT, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "3", "3:", ":8", "3:4:5", " : "])
def test_wrong_layer_ranges(text: str) -> None:
    with pytest.raises(SaeGraphsError, match="first:last"):
        parse_layers(text)


def test_layer_ranges() -> None:
    assert parse_layers(" 3 : e ") == ("3", "e")
    assert parse_layers(None) is None
    for given in ("1:3", (1, 3), ["1", "3"]):
        assert effect_settings(layers=given).layers == ("1", "3")  # type: ignore[arg-type]


def test_pins_are_parsed() -> None:
    assert [str(p) for p in effect_settings(pin=("5.10600",)).pin] == ["5.10600"]  # type: ignore[arg-type]
    assert effect_settings(pin="5.10600") == effect_settings(pin=("5.10600",))  # type: ignore[arg-type]


@pytest.mark.parametrize("pin", [(), ("0.1",)])
def test_default_path_length(pin: tuple[str, ...]) -> None:
    settings = effect_settings(pin=pin)  # type: ignore[arg-type]
    assert [settings.path_edges(pairs) for pairs in (1, 2, 3, 12)] == (
        [1, 1, 1, 1] if pin else [1, 2, 3, 3]
    )


# -- prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", 5, None])
def test_no_prompt(tiny: InstrumentedModel, prompt: Any) -> None:
    with pytest.raises(SaeGraphsError, match="give some text"):
        effect_graph(tiny, prompt)


def test_longest_prompt(tiny: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match=f"33 tokens, tiny reads at most {CONTEXT}"):
        effect_graph(tiny, "(" * CONTEXT)
    assert len(tiny.clean_run("(" * (CONTEXT - 1))) == CONTEXT


@pytest.mark.parametrize(
    "prompt",
    first(
        5,
        [
            "\ud83d half an emoji",
            "a\x00b",
            "שלום \u202e<script>",
            " ",
            "\n\t",
            "\udc00",
            "😀 'quotes' & \"more\"",
        ],
    ),
    ids=["half", "NUL", "right to left", "space", "newline", "other half", "emoji"],
)
def test_hostile_prompts(tiny: InstrumentedModel, prompt: str, tmp_path: Path) -> None:
    graph = effect_graph(tiny, prompt, min_path_edges=1)
    assert graph.edges
    again = CausalGraph.load(graph.save(tmp_path))
    assert again == graph
    assert again.run.prompt == prompt


def test_bos_comes_once(tiny: InstrumentedModel) -> None:
    plain = tiny.clean_run("the cat").token_ids
    assert plain[0] == 0
    assert tiny.clean_run("<bos>the cat").token_ids == plain
    assert tiny.clean_run("the cat", prepend_bos=False).token_ids == plain[1:]
    assert tiny.clean_run("<bos>the cat", prepend_bos=False).token_ids == plain
    graph = effect_graph(tiny, "<bos>the cat")
    assert graph.run.tokens == effect_graph(tiny, "the cat").run.tokens
    assert graph.run.tokens[0] == "<bos>"


def test_bos_follows_the_saes(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["gap"], ["standard"], prepend_bos=False)
    model = InstrumentedModel(bridge, saes)
    assert model.clean_run("the cat").tokens == ("the", " cat")
    assert model.clean_run("the cat", prepend_bos=True).tokens == ("<bos>", "the", " cat")
