"""Where a subject stands: in split characters, with marks, several times, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.subject import find_subject
from tests.conftest import BridgeOf
from tests.support.stacks import one_line

FAMILY = "👩‍👩‍👧"  # three emoji, joined: eighteen bytes, each its own token


@pytest.fixture(scope="module")
def model(bridge_of: BridgeOf) -> LanguageModel:
    return LanguageModel(bridge_of("gpt2", "float64"))


def found(model: LanguageModel, prompt: str, subject: str | Sequence[int]) -> tuple[str, str]:
    """The subject's tokens joined, and the note."""
    ids = model.tokenize(prompt)
    place = find_subject(model, ids, subject, len(ids) - 1)
    text = b"".join(
        bytes([int(shown[3:5], 16)]) if shown.startswith("<0x") else shown.encode()
        for shown in (model.token_string(ids[at]) for at in place.positions)
    )
    return text.decode(), place.note


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("the cat sat on the mat", "cat", " cat"),
        ("the cat sat on the mat", " cat ", " cat"),
        ("the cat sat on the mat", "cat sat", " cat sat"),
        ("the cat sat on the mat", "the", " the"),  # the last one
        ("cat the mat", "cat", "cat"),  # at the very beginning, without a space
        ("the dog ran to café and slept", "café", " café"),
        ("the dog ran to cafe\u0301 and slept", "café", " cafe\u0301"),  # another normal form
        ("the café and cafe\u0301 slept", "cafe\u0301", " cafe\u0301"),
        ("the cafe\u0301 and a cafe slept", "cafe", " cafe"),  # no mark on it
        (f"the {FAMILY} sat on", FAMILY, f" {FAMILY}"),
        (f"the {FAMILY} sat on", "👧", "👧"),
        ("the 猫 sat on the mat", "猫", " 猫"),
        ("other the other mat", "the", " the"),  # a whole word before parts of words
        ("the ca\nt sat", "ca\nt", " ca\nt"),
        ("a <0xC3> b c", "<0xC3>", " <0xC3>"),
        ("the \ud83d sat", "\ud83d", " \ufffd"),  # half a character is replaced, as in the prompt
    ],
)
def test_a_text_is_found(model: LanguageModel, prompt: str, subject: str, expected: str) -> None:
    assert found(model, prompt, subject)[0].strip() == expected.strip()


def test_of_several_the_last_before_the_answer_is_taken(model: LanguageModel) -> None:
    text, note = found(model, "the cat and the cat and cat sat", "cat")
    assert text == " cat"
    assert note.startswith("the subject 'cat' comes 3 times; corrupted is the last one before the")
    ids = model.tokenize("the cat and the cat")
    place = find_subject(model, ids, "cat", len(ids) - 1)
    assert place.positions == (2,), "not the one where the answer is read"
    assert found(model, "the cat sat", "cat")[1] == ""


def test_positions_are_taken_as_they_are(model: LanguageModel) -> None:
    ids = model.tokenize("the cat sat on")
    assert ids[0] == 0
    assert find_subject(model, ids, [2, 1, 2], 4).positions == (1, 2)
    assert find_subject(model, ids, (-3,), 4).positions == (2,)
    assert find_subject(model, ids, range(1, 3), 4).positions == (1, 2)


def test_the_bos_is_no_subject(model: LanguageModel) -> None:
    with pytest.raises(SaeGraphsError, match="'<bos>' is not in the prompt"):
        found(model, "the cat sat", "<bos>")
    assert find_subject(model, model.tokenize("the cat sat"), [0], 3).positions == (0,)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("dog", "the subject 'dog' is not in the prompt; give a part of its text"),
        ("CAT", "did you mean 'cat'"),
        ("mat", "the last token alone, ' mat', where the answer is read"),
        ("\n \t", "the subject is empty"),
        ("x" * 5000, "is not in the prompt"),
        ([], "give some text of the prompt, or positions"),
        (["a"], "give some text of the prompt, or positions"),
        ([7], "expected 0 to 6"),
    ],
)
def test_what_is_not_there_is_answered_in_one_line(
    model: LanguageModel, subject: str | Sequence[int], message: str
) -> None:
    with pytest.raises(SaeGraphsError, match=message) as caught:
        found(model, "the cat sat on the mat", subject)
    one_line(caught)
