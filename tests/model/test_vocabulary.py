"""What tokens are shown as, and which token a text asks for: several kinds of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.next_token import token_id
from sae_graphs.model.vocabulary import Vocabulary
from sae_graphs.text import joined
from tests.support import models as tiny_models

TEXT = "café (日本) \U0001f600 naïve\n\tend"


def fast(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


@cache
def sentencepiece(scheme: str) -> PreTrainedTokenizerFast:
    """Llama's kind: pieces with a `▁` for the space, bytes for what has no piece."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["▁", ")", "▁)", "(", "▁(", "a", "▁a", "Paris", "▁Paris", "▁▁", "c", "f", "caf", "A"]
    words += ["aP", "n", "e", "d", "end"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *words])}
    merges = [("▁", ")"), ("▁", "("), ("▁", "a"), ("▁", "▁")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return fast(tokenizer)


@cache
def wordpiece() -> PreTrainedTokenizerFast:
    words = ["<unk>", "the", "cat", "##s", "s", "##at", "(", ")", "."]
    tokenizer = Tokenizer(
        models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return fast(tokenizer)


@cache
def with_added() -> PreTrainedTokenizerFast:
    """GPT-2's kind, with tokens added that look like others, and like a byte."""
    added = deepcopy(tiny_models.tokenizer())
    same = [" the", "<0xC3>", "#5", " new"]
    added.add_tokens([AddedToken(text, normalized=False) for text in same])
    return added


@cache
def ends_of_words() -> PreTrainedTokenizerFast:
    """GPT-1's kind: pieces that end a word say so."""
    pieces = ["<unk>", "a", "a</w>", "b", "b</w>", "ab</w>"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("a", "b</w>")],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return fast(tokenizer)


KINDS: dict[str, Callable[[], Any]] = {
    "byte level": tiny_models.tokenizer,
    "metaspace, first": lambda: sentencepiece("first"),
    "metaspace, always": lambda: sentencepiece("always"),
    "metaspace, never": lambda: sentencepiece("never"),
    "word pieces": wordpiece,
    "with added tokens": with_added,
    "ends of words": ends_of_words,
}


class Model:
    """As much of a language model as a target needs."""

    name = "tiny"

    def __init__(self, tokenizer: Any, size: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary(tokenizer, len(tokenizer or ()) if size is None else size)

    def token_string(self, number: int) -> str:
        return self.vocabulary.shown(number)


def asked(model: Any, text: str) -> int:
    return token_id(model, text)


# -- every token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_tokens_look_alike_and_each_can_be_asked_for(kind: str) -> None:
    model = Model(KINDS[kind](), len(KINDS[kind]()) + 3)  # as padded vocabularies are
    shown = [model.token_string(number) for number in range(model.vocabulary.size)]
    assert len(set(shown)) == len(shown)
    assert shown[-3:] == [f"#{number}" for number in range(len(shown) - 3, len(shown))]
    for number, text in enumerate(shown):
        assert "\N{REPLACEMENT CHARACTER}" not in text
        assert asked(model, text) == asked(model, f"#{number}") == number


@pytest.mark.parametrize("kind", ["byte level", "metaspace, never"])
def test_tokens_joined_are_the_prompt(kind: str) -> None:
    tokenizer = KINDS[kind]()
    model = Model(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces = [model.token_string(number) for number in ids]
    assert joined(pieces) == TEXT
    assert "<0xC3>" in pieces and "<0xA9>" in pieces


def test_the_bundled_model() -> None:
    model = sg.load_model("demo")
    tokens = model.run("café").tokens
    assert tokens[-2:] == ("<0xC3>", "<0xA9>") and joined(tokens).endswith("café")
    assert token_id(model, "<0xC3>") == 128 != token_id(model, "<0xA9>")


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["metaspace, first", "metaspace, always"])
def test_a_bracket_is_a_bracket_without_a_space(kind: str) -> None:
    tokenizer = KINDS[kind]()
    read = tokenizer(")", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(read) == ["▁)"]  # what used to be measured
    model = Model(tokenizer)
    for text in (")", " )", "(", " (", "Paris", " Paris", " "):
        assert model.token_string(asked(model, text)) == text
    assert asked(model, "␣Paris") == asked(model, " Paris") != asked(model, "Paris")
    with pytest.raises(SaeGraphsError, match=r"' end' is \d tokens of tiny"):
        asked(model, " end")


def test_a_token_that_is_shown_in_another_way_is_named() -> None:
    model = Model(wordpiece())
    with pytest.raises(SaeGraphsError, match="no token of tiny is shown as 'THE'") as told:
        asked(model, "THE")
    assert "'the'" in str(told.value) and "#1" in str(told.value)


def test_by_byte() -> None:
    for kind in ("byte level", "metaspace, first"):
        model = Model(KINDS[kind]())
        newline = asked(model, "<0x0A>")
        assert model.token_string(newline) == "\n"
        assert newline == asked(model, "\n") == asked(model, "↵")
    llama = Model(sentencepiece("first"))
    assert llama.token_string(asked(llama, "<0x41>")) == "<0x41>"  # there is an A, too
    assert llama.token_string(asked(llama, "A")) == "A"
    assert asked(llama, "<0x41>") != asked(llama, "A")
    with pytest.raises(SaeGraphsError):
        asked(Model(wordpiece()), "<0xC3>")
    with pytest.raises(SaeGraphsError):
        asked(llama, "<0xC3><0xA9>")


def test_by_id() -> None:
    model = Model(tiny_models.tokenizer(), 50301)
    assert model.token_string(50300) == "#50300" and asked(model, "#50300") == 50300
    with pytest.raises(SaeGraphsError, match="token id 50301 is none of tiny's; expected #0 to"):
        asked(model, "#50301")


def test_an_id_that_is_a_text_as_well() -> None:
    tokenizer = fast(Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "#1": 2}, "<unk>")))
    model = Model(tokenizer)
    with pytest.raises(SaeGraphsError, match="'#1' is the text of token #2, and the token with"):
        asked(model, "#1")
    assert asked(model, "a") == 1 and asked(model, "#2") == 2


def test_without_a_tokenizer() -> None:
    model = Model(None, 7)
    assert model.token_string(3) == "#3" and asked(model, "#3") == 3
    with pytest.raises(SaeGraphsError, match="tiny has no tokenizer, so 'a' is no token"):
        asked(model, "a")


def test_bytes_of_a_tokenizer_that_holds_bytes() -> None:
    held = {0: b"a", 1: b"\xc3", 2: b" \xe2\x80"}
    tokenizer = SimpleNamespace(convert_ids_to_tokens=held.get)
    vocabulary = Vocabulary(tokenizer, 4)
    assert [vocabulary.shown(number) for number in range(4)] == [
        "a",
        "<0xC3>",
        " <0xE2><0x80>",
        "#3",
    ]


# -- in a graph ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_targets_of_a_graph() -> None:
    model = sg.load("demo")
    for target in ("<0xC3>", "#128"):
        graph = sg.causal_graph(model, "Copyright (C", target=target, contrast=")", nodes=2)
        (output,) = graph.run.outputs
        assert (output.token, output.token_id, output.contrast) == ("<0xC3>", 128, ")")
