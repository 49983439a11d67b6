"""What Neuronpedia answers is read with care: damaged, hostile and endless values do no harm."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import contexts
from sae_graphs.features.neuronpedia import answers
from sae_graphs.features.neuronpedia.answers import (
    _CONTROLS,
    Answer,
    read_batch,
    read_one,
    read_record,
    read_token,
)
from sae_graphs.graph.addresses import Address
from sae_graphs.graph.feature_page import FeaturePage, LogitToken, page_from
from sae_graphs.graph.records import Context
from tests.support.neuronpedia_server import UNREAD, record

HERE = Address("gpt2-small/5-res-jb", 10603)


def test_a_record_as_the_service_has_it() -> None:
    page, texts = read_record(record(str(HERE)))
    assert page == FeaturePage(
        status="found",
        explanation="closing brackets",
        density=0.00125,
        max_activation=42.5,
        top_logits=(LogitToken(" )", 1.5), LogitToken("]", 0.75)),
        bottom_logits=(LogitToken(" the", -1.25), LogitToken("a", -0.5)),
    )
    assert texts == (
        Context(
            tuple(f" t{number}" for number in range(5, 25)),  # 15 before the peak, 4 after
            (*[0.0] * 15, 40.0, *[0.0] * 4),
        ),
    )


def test_texts_are_cut_as_in_stored_contexts() -> None:
    assert (answers.BEFORE, answers.AFTER) == (contexts.BEFORE, contexts.AFTER)


def text(tokens: str, *values: float) -> dict[str, Any]:
    return {"tokens": tokens.split(), "values": list(values), "maxValue": 9e9}


def test_texts_come_strongest_first_without_near_copies() -> None:
    given_texts = [
        text("x a b c d", 0, 0, 0, 0, 4.5),
        text("y a b c d", 0, 0, 0, 0, 5.0),  # the same four tokens up to the peak
        text("d", 3.0),
        text("e", 4.0),
        text("f", 1.0),
    ]
    found = read_record(record(str(HERE), activations=given_texts)).contexts
    assert ["".join(context.tokens) for context in found] == ["yabcd", "e", "d"]


@pytest.mark.parametrize(
    "damaged",
    [
        text("a b", 1.0),
        text("a b", 0.0, 0.0),
        text("a", math.inf),
        text("a", math.nan),
        {"tokens": ["a", 1], "values": [1.0, 2.0]},
        {"tokens": ["a"], "values": ["1"]},
        {"tokens": ["a"], "values": [True]},
        {"tokens": "a", "values": [1.0]},
        {},
        None,
        "text",
        [],
    ],
)
def test_damaged_texts_are_left_out(damaged: Any) -> None:
    good = text("good", 1.0)
    found = read_record(record(str(HERE), activations=[damaged, good])).contexts
    assert [context.tokens for context in found] == [("good",)]


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("explanations", None, "explanation", None),
        ("explanations", [], "explanation", None),
        ("explanations", {"description": "x"}, "explanation", None),
        ("explanations", [{"description": 3}], "explanation", None),
        ("explanations", [{"description": " \n "}, {"description": "b"}], "explanation", "b"),
        ("explanations", [{"description": " a\n\tb "}], "explanation", "a b"),
        ("explanations", [{"description": "x" * 10**6}], "explanation", "x" * 500),
        ("frac_nonzero", "0.5", "density", None),
        ("frac_nonzero", 1.5, "density", None),
        ("frac_nonzero", -0.1, "density", None),
        ("frac_nonzero", True, "density", None),
        ("frac_nonzero", 0, "density", 0.0),
        ("maxActApprox", math.inf, "max_activation", None),
        ("maxActApprox", -1.0, "max_activation", None),
        ("maxActApprox", 10**400, "max_activation", None),
        ("maxActApprox", [1], "max_activation", None),
        ("pos_str", None, "top_logits", ()),
        ("pos_str", ["a"] * 20_000, "top_logits", ()),
        ("pos_str", [1, "b"], "top_logits", (LogitToken("b", 0.75),)),
        ("pos_str", ["b" * 999], "top_logits", (LogitToken("b" * 64, 1.5),)),
        ("pos_values", [math.nan, 2.0], "top_logits", (LogitToken("]", 2.0),)),
        ("pos_values", [-1.0, 0.5], "top_logits", (LogitToken("]", 0.5),)),
        ("pos_values", [0.5, 2], "top_logits", (LogitToken("]", 2.0), LogitToken(" )", 0.5))),
        ("neg_values", [-0.5, -2], "bottom_logits",
         (LogitToken("a", -2.0), LogitToken(" the", -0.5))),
    ],
)  # fmt: skip
def test_each_field_is_checked(field: str, value: Any, attribute: str, expected: Any) -> None:
    page = read_record(record(str(HERE), **{field: value})).page
    assert page.status == "found"
    assert getattr(page, attribute) == expected


def test_odd_characters_are_kept_for_whoever_shows_them() -> None:
    odd = "\x1b[31m</script>\u202e😀\x00"
    page = read_record(record(str(HERE), odd, pos_str=[odd], pos_values=[1.0])).page
    assert page.explanation == odd
    assert page.top_logits == (LogitToken(odd, 1.0),)


def test_tokens_are_read_as_their_tokenizers_mean_them() -> None:
    page, (context,) = read_record(record(str(HERE), **UNREAD))
    read = ["\n", "’", " the", " Copyright", "\n", "don’t", "café"]
    assert [item.token for item in page.top_logits] == read
    assert [item.token for item in page.bottom_logits] == [" ét", "’", "âĢ"]
    assert context.tokens == (" don", "’", "t", "\n", " ")


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (" donâĢĻt", " don’t"),  # half read: the space is one already
        ("čĊĉ", "\r\n\t"),
        ("Ġ", " "),
        ("ðŁĺĢ", "😀"),
        ("ĠÐ¼Ð¸ÑĢ", " мир"),
        ("ÃĮ", "Ì"),
        *[
            (text, text)
            for text in ("café", "naïve", "£", "się", "č", "ą", "ğ", "мир", "日本", "’")
        ],
        *[(text, text) for text in ("", "\x1b[31m", "<0xZZ>", "<0xE2>", "<0xFF><0x0A>", "<0x0A")],
        ("▁▁x", "  x"),
        ("▁café", " café"),
        ("a<0x41>b", "aAb"),
        ("âĢĻ" * 200, "’" * 200),
    ],
)
def test_tokens_of_every_tokenizer(token: str, text: str) -> None:
    assert read_token(token) == text


ascii_texts = st.text(st.characters(max_codepoint=0x7F)).filter(lambda text: "<0x" not in text)


@given(ascii_texts)
def test_ascii_is_what_it_is(text: str) -> None:
    assert read_token(text) == text


@given(st.text().filter(lambda text: not _CONTROLS.search(text)))
def test_what_byte_level_tokenizers_write_is_read(text: str) -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    written = "".join(bytes_to_unicode()[byte] for byte in text.encode())
    assert read_token(written) == (read_token(text) if written.isascii() else text)


def test_tokens_are_cut_after_they_are_read() -> None:
    page = read_record(record(str(HERE), pos_str=["âĢĻ" * 80], pos_values=[1.0])).page
    assert page.top_logits == (LogitToken("’" * 64, 1.0),)


def explained(description: str, **how: Any) -> dict[str, Any]:
    return {"description": description, **how}


@pytest.mark.parametrize(
    "ordered",
    [
        [explained("c", scores=[{"value": 0.1}, {"value": 0.9}]),
         explained("b", scores=[{"value": 0.8}]),
         explained("a", scores=[], typeName="A")],
        [explained("z", scores=[{"value": -1}], typeName="Z"), explained("a")],
        [explained("b", typeName="np_acts", explanationModelName="z"),
         explained("a", typeName="oai", explanationModelName="a")],
        [explained("b", typeName="oai", explanationModelName="a"),
         explained("a", typeName="oai", explanationModelName="b")],
        [explained("a", typeName="oai", scores="x"), explained("b", typeName="oai", scores=[3])],
        [explained("b"), explained("a", typeName="oai")],
        [explained("b", scores=[{"value": 1}]), explained("a", scores=[{"value": "2"}])],
    ],
)  # fmt: skip
def test_which_of_several_explanations_is_shown(ordered: list[dict[str, Any]]) -> None:
    for given_order in itertools.permutations(ordered):
        page = read_record(record(str(HERE), explanations=list(given_order))).page
        assert page.explanation == ordered[0]["description"]


def test_halves_of_characters_are_replaced() -> None:
    half = [{"tokens": ["\ud83d", "b"], "values": [1.0, 0.0]}]
    held = record(str(HERE), "a\ud83d b", pos_str=["\ude00"], pos_values=[1.0], activations=half)
    page, (context,) = read_record(held)
    assert page.explanation == "a\ufffd b"
    assert page.top_logits == (LogitToken("\ufffd", 1.0),)
    assert context.tokens == ("\ufffd", "b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["tokens", "values", "description", "index", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
fields = st.dictionaries(
    st.sampled_from([*record(str(HERE)), "unknown"]), json_values, max_size=8
)  # fmt: skip


@given(fields)
def test_no_record_does_harm(changes: dict[str, Any]) -> None:
    page, texts = read_record({**record(str(HERE)), **changes})
    stored = json.loads(json.dumps(asdict(page), allow_nan=False))
    assert page_from(stored) == page
    assert all(context.tokens and max(context.activations) > 0 for context in texts)


@given(json_values)
def test_no_batch_does_harm(data: Any) -> None:
    found = read_batch(data, [HERE])
    assert found is None or found == {HERE: Answer(FeaturePage("missing"))}
    assert read_one(data, HERE) is None


# -- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_read_by_address_not_by_order() -> None:
    asked = [Address("m/1-r", 7), Address("m/2-r", 7), Address("m/1-r", 8), Address("m/3-r", 9)]
    said = [record(str(at), f"means {at}") for at in reversed(asked[:3])]
    twice = record("m/2-r/7", "a second time")
    found = read_batch([*said, twice, record("other/1-r/7"), record("m/1-r/6")], asked)
    assert found is not None
    assert list(found) == asked
    assert [found[at].page.explanation for at in asked] == [
        "means m/1-r/7",
        "means m/2-r/7",
        "means m/1-r/8",
        None,
    ]
    assert found[asked[3]] == Answer(FeaturePage("missing"))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "[]",
        [1],
        [None],
        [[]],
        [{}],
        [{"modelId": "m", "layer": "1-r"}],
        [{"modelId": 1, "layer": "1-r", "index": "1"}],
        [{"modelId": "m", "layer": "1-r", "index": "x"}],
        [{"modelId": "m", "layer": "1-r", "index": 1.0}],
        [{"modelId": "m", "layer": "1-r", "index": True}],
        [{"modelId": "m", "layer": "1-r", "index": "1" * 5000}],
        [record("m/1-r/1")] * 20_000,
    ],
)
def test_what_is_no_batch_says_nothing(data: Any) -> None:
    assert read_batch(data, [Address("m/1-r", 1)]) is None


def test_one_record_is_of_the_feature_asked_for() -> None:
    found = read_one(record(str(HERE)), HERE)
    assert found is not None
    assert found.page.explanation == "closing brackets"
    assert read_one(record("gpt2-small/5-res-jb/7"), HERE) is None


# -- pages check themselves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"status": "gone"},
        {"status": "missing", "explanation": "x"},
        {"status": "unavailable", "density": 0.5},
        {"status": "found", "density": 1.5},
        {"status": "found", "density": "0.5"},
        {"status": "found", "max_activation": math.inf},
        {"status": "found", "explanation": 3},
        {"status": "found", "gave_contexts": 1},
    ],
)
def test_pages_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(SaeGraphsError):
        FeaturePage(**values)


@pytest.mark.parametrize(("token", "weight"), [(1, 1.0), ("a", math.nan), ("a", "1"), ("a", None)])
def test_tokens_have_weights(token: Any, weight: Any) -> None:
    with pytest.raises(SaeGraphsError, match="not a token and its weight"):
        LogitToken(token, weight)
