"""What Neuronpedia answers, made safe: every kind, length and number is checked, none is trusted.

A feature's record, as the service's interface gives it, has `explanations[].description`,
`frac_nonzero`, `maxActApprox`, `pos_str`, `pos_values`, `neg_str`, `neg_values` and
`activations[]` with `tokens` and `values`. What is of another kind counts as not there. Texts are
cut to a length but keep their odd characters, which are made visible where they are shown; halves
of characters, which no file and no table could hold, become U+FFFD. Tokens that come as their
tokenizer writes them are read: `read_token` says how.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.addresses import Address
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.records import Context

BEFORE, AFTER = 15, 4  # tokens kept around the peak, as in the stores that `contexts` writes
CONTEXTS = 3  # kept of each feature
LOGITS = 10  # tokens kept at each end
ASKED = 8  # example texts asked for, of which near-copies are left out

_LONGEST_EXPLANATION, _LONGEST_TOKEN = 500, 64  # characters
_LONGEST_LIST = 10_000  # more than that is not looked at
_SAME_ENDING = 4  # texts that agree in so many tokens up to their peak are near-copies
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")
_CONTROLS = re.compile(
    r"(?!\r\n)[\x00-\x08\x0b-\x1f\x7f]"
)  # all but tab, newline, and CR before it


class Answer(NamedTuple):
    """What the service knows of one feature: its page, and texts on which it is active."""

    page: FeaturePage
    contexts: tuple[Context, ...] = ()


def read_batch(data: Any, asked: Collection[Address]) -> Mapping[Address, Answer] | None:
    """The answers for the features that were asked about, by address: their order means nothing.

    A feature that is left out is missing. None where the data is no list of records: then nothing
    is known of any of them. Of several records of one feature the first counts.
    """
    if not isinstance(data, list) or len(data) > _LONGEST_LIST:
        return None
    found: dict[Address, Answer] = {}
    for item in data:
        address = _address(item)
        if address is None:
            return None
        if address in asked and address not in found:
            found[address] = read_record(item)
    return {address: found.get(address, Answer(FeaturePage("missing"))) for address in asked}


def read_one(data: Any, asked: Address) -> Answer | None:
    """The answer for one feature; None where the data is not its record."""
    return read_record(data) if _address(data) == asked else None


def read_record(record: Mapping[str, Any]) -> Answer:
    """A feature's page and texts; what is damaged is left out."""
    contexts = _contexts(record.get("activations"))
    density, largest = _number(record.get("frac_nonzero")), _number(record.get("maxActApprox"))
    page = FeaturePage(
        status="found",
        explanation=_explanation(record.get("explanations")),
        density=density if density is not None and 0 <= density <= 1 else None,
        max_activation=largest if largest is not None and largest >= 0 else None,
        top_logits=_logits(record.get("pos_str"), record.get("pos_values"), sign=1),
        bottom_logits=_logits(record.get("neg_str"), record.get("neg_values"), sign=-1),
    )
    return Answer(page, contexts)


# -- parts of a record -----------------------------------------------------------------------------


def _address(item: Any) -> Address | None:
    """Whose record it is; None where it does not say."""
    if not isinstance(item, dict):
        return None
    model, source, index = item.get("modelId"), item.get("layer"), item.get("index")
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) <= 15:
        index = int(index)
    if not (isinstance(model, str) and isinstance(source, str) and type(index) is int):
        return None
    try:
        return Address(f"{model}/{source}", index)
    except SaeGraphsError:
        return None


def _explanation(items: Any) -> str | None:
    """The description to show, its white space made single; None where none says something.

    Of several: the one with the highest score (the largest `scores[].value`), those without any
    last; then by `typeName`, `explanationModelName` and the text itself, in the order of the
    alphabet. The order in which the service gives them means nothing.
    """
    found: list[tuple[float, str, str, str]] = []
    for item in _list(items):
        text = item.get("description") if isinstance(item, dict) else None
        words = " ".join(text[: 4 * _LONGEST_EXPLANATION].split()) if isinstance(text, str) else ""
        if words:
            kind, model = item.get("typeName"), item.get("explanationModelName")
            names = (kind if isinstance(kind, str) else "", model if isinstance(model, str) else "")
            found.append((-_score(item.get("scores")), *names, words))
    return _whole(min(found)[-1][:_LONGEST_EXPLANATION]) if found else None


def _score(items: Any) -> float:
    """The best score of an explanation, whatever gave it; below all others where there is none."""
    values = (_number(item.get("value")) for item in _list(items) if isinstance(item, dict))
    return max((value for value in values if value is not None), default=-math.inf)


def _logits(tokens: Any, weights: Any, *, sign: int) -> tuple[LogitToken, ...]:
    """The tokens at one end, strongest first; those whose weight has the other sign are not."""
    pairs = zip(_list(tokens), map(_number, _list(weights)), strict=False)
    found = [
        LogitToken(_token(token), weight)
        for token, weight in pairs
        if isinstance(token, str) and weight is not None and weight * sign > 0
    ]
    return tuple(sorted(found, key=lambda item: -sign * item.weight)[:LOGITS])


def _contexts(items: Any) -> tuple[Context, ...]:
    """Texts cut around their peak, strongest first, near-copies left out."""
    read = [found for item in _list(items) if (found := _text(item)) is not None]
    chosen: list[Context] = []
    seen: set[tuple[str, ...]] = set()
    for tokens, values in sorted(read, key=lambda found: -max(found[1])):
        peak = values.index(max(values))
        ending = tokens[max(peak + 1 - _SAME_ENDING, 0) : peak + 1]
        if ending in seen or len(chosen) == CONTEXTS:
            continue
        seen.add(ending)
        shown = slice(max(peak - BEFORE, 0), peak + AFTER + 1)
        cut = tuple(map(_token, tokens[shown]))
        chosen.append(Context(cut, values[shown]))
    return tuple(chosen)


def _text(item: Any) -> tuple[tuple[str, ...], tuple[float, ...]] | None:
    """Tokens and their activations; None where they do not fit, or nothing is active."""
    if not isinstance(item, dict):
        return None
    tokens, values = _list(item.get("tokens")), [_number(v) for v in _list(item.get("values"))]
    if len(tokens) != len(values) or not all(isinstance(token, str) for token in tokens):
        return None
    numbers = tuple(value for value in values if value is not None)
    if len(numbers) != len(values) or max(numbers, default=0.0) <= 0:
        return None
    return tuple(tokens), numbers


# -- tokens ----------------------------------------------------------------------------------------


def read_token(token: str) -> str:
    """A token's text, where the service gives the token as its tokenizer writes it.

    - Byte-level tokenizers (GPT-2, Llama 3, Qwen) write each byte as a character of a table. Where
      every character is in it, or ASCII, and the bytes are UTF-8, that text is meant. Text that was
      read before nearly never is: the bytes of "café" are not UTF-8. Where control codes would come
      out (but tab, newline, and CR before a newline), the token is a text such as "się", and stays.
    - Else `▁` is a space and `<0x0A>` a byte, as sentencepiece writes them; bytes that are no
      UTF-8 stay as they are.

    All other text comes back as it is.

    >>> [read_token(token) for token in ("Ġthe", "donâĢĻt", "▁Copyright", "<0x0A>", "café", "się")]
    [' the', 'don’t', ' Copyright', '\\n', 'café', 'się']
    """
    table = _byte_of()
    if not token.isascii() and all(character in table for character in token):
        text = _decoded(bytes(table[character] for character in token))
        if text is not None and not _CONTROLS.search(text):
            return text
    spaced = token.replace("▁", " ")
    return _BYTES.sub(lambda found: _from_hex(found.group()), spaced)


def _from_hex(run: str) -> str:
    text = _decoded(bytes.fromhex(re.sub("<0[xX]|>", "", run)))
    return run if text is None else text


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


@functools.cache
def _byte_of() -> Mapping[str, int]:
    """Characters to the bytes that they stand for: GPT-2's table (`bytes_to_unicode`), and ASCII.

    Bytes that are printable in Latin-1 stand for themselves, the others have the characters from
    U+0100 on, in their order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in (*range(0x80), *printable)}
    return table | {chr(0x100 + number): byte for number, byte in enumerate(others)}


def _token(token: str) -> str:
    """A token as it is kept."""
    return _whole(read_token(token[: 4 * _LONGEST_TOKEN])[:_LONGEST_TOKEN])


# -- values ----------------------------------------------------------------------------------------


def _whole(text: str) -> str:
    """The text without lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and len(value) <= _LONGEST_LIST else []


def _number(value: Any) -> float | None:
    """A finite number; None for all else, whole numbers beyond a float's range among it."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
