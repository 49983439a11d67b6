"""The tokenizer: spells anything, and splits as the phenomena need it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.files import bundled_folder
from tests.support.slow import examples
from training.demo.corpus.stream import documents
from training.demo.tokenizer import load_tokenizer
from training.demo.tokens import equal_length_batches, packed_rows, token_rows


def shipped() -> Path:
    """The folder of the shipped model."""
    return bundled_folder() / "model"


@cache
def opened() -> Any:
    """The shipped tokenizer, opened once."""
    return load_tokenizer(shipped())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The shipped tokenizer."""
    return opened()


@examples(200)
@given(text=st.text())
def test_every_text_comes_back(text: str) -> None:
    tokenizer = opened()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("Copyright (C", ["Ġ(", "C"]),
        ("Copyright (C)", ["C", ")"]),
        ("Foreign Direct Investment (FDI)", ["Ġ(", "F", "D", "I", ")"]),
        ("a new report from C", ["Ġfrom", "ĠC"]),
        ("((x))", ["(", "(", "x", ")", ")"]),
    ],
)
def test_letters_and_brackets_are_tokens_of_their_own(
    tokenizer: Any, text: str, last: list[str]
) -> None:
    assert tokenizer.encode(text).tokens[-len(last) :] == last


def test_opens_offline_as_a_hugging_face_tokenizer() -> None:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(str(shipped()))
    assert found.bos_token == found.eos_token == "<|endoftext|>"
    assert found.bos_token_id == 0
    assert found.decode(found("Copyright (C) 1998")["input_ids"]) == "Copyright (C) 1998"


@pytest.mark.slow
def test_rows_begin_with_the_marker(tokenizer: Any) -> None:
    rows = token_rows(tokenizer, 3, "test", context=64, rows=50)
    assert rows.shape == (50, 64)
    assert (rows[:, 0] == 0).all()
    assert (rows == token_rows(tokenizer, 3, "test", context=64, rows=50)).all()


@pytest.mark.slow
def test_rows_hold_whole_documents(tokenizer: Any) -> None:
    row = next(packed_rows(tokenizer, 3, "test", 64))
    first = next(documents(3, "test"))
    assert tokenizer.decode(row[1:], skip_special_tokens=False).startswith(first[:40])


@pytest.mark.slow
def test_batches_of_one_length(tokenizer: Any) -> None:
    batch = next(equal_length_batches(tokenizer, 0, 128, rows=8))
    assert len(batch) == 8
    assert len({len(row) for row in batch}) == 1
    assert all(row[0] == 0 and 0 not in row[1:] for row in batch)
