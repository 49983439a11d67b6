"""Where the subject of a prompt stands: a text to token positions.

Tokens are compared by the bytes that they stand for, so that a character which is split over tokens
is found, and all of its tokens with it. The subject is looked for as it is given, without the space
around it, then in other Unicode normal forms and as the tokenizer reads it. Where it comes several
times, whole words go before parts of words, and the last one before the read token is taken.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.run import Run
from sae_graphs.text import bytes_of, joined
from sae_graphs.tracing.cases_file import Case, Looked

FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


class Subject(NamedTuple):
    """The positions of a subject's tokens, in order; `note` says which of several was taken."""

    positions: tuple[int, ...]
    note: str = ""


def find_subject(
    model: LanguageModel,
    token_ids: Sequence[int],
    subject: str | Sequence[int],
    read: int,
    *,
    behind: int | None = None,
) -> Subject:
    """The subject's tokens in a prompt: of a text, or of positions, counted from the end below 0.

    Of a text that comes several times, the one after whose start `behind` characters follow, its
    own counted, as nearly as the tokenizer keeps them; else the last before the answer. Raises
    `SaeGraphsError` where it is not in the prompt, or stands nowhere but where the answer is read,
    from which nothing could be handed on.
    """
    if isinstance(subject, str):
        found = _found(model, token_ids, subject, read, behind)
    else:
        found = Subject(_positions(subject, len(token_ids)))
    positions = found.positions
    if positions[-1] > read:
        raise SaeGraphsError(
            f"the subject stands at token {positions[-1]}, after token {read} where the answer is "
            "read; give an earlier subject, or read later"
        )
    if positions[0] == read:
        raise SaeGraphsError(
            f"the subject is the last token alone, {model.token_string(token_ids[read])!r:.40}, "
            "where the answer is read: nothing is handed on; give an earlier subject"
        )
    return found


def _positions(given: Sequence[int], n_tokens: int) -> tuple[int, ...]:
    try:
        places = [operator.index(place) for place in given]
        whole = not any(isinstance(place, bool) for place in given)
    except TypeError:
        places, whole = [], False
    if not places or not whole:
        raise SaeGraphsError(
            f"the subject is {given!r:.60}; give some text of the prompt, or positions of tokens"
        )
    wrong = [place for place in places if not -n_tokens <= place < n_tokens]
    if wrong:
        raise SaeGraphsError(
            f"the subject's token {wrong[0]} is none of the prompt's; expected 0 to {n_tokens - 1}"
        )
    return tuple(sorted({place % n_tokens for place in places}))


class _Text(NamedTuple):
    """A prompt as text, and the tokens that each of its characters is made of."""

    text: str
    tokens: list[tuple[int, ...]]

    def occurrences(self, wanted: str) -> list[tuple[int, ...]]:
        """The tokens of every place where a text stands; of whole words alone, if there are any."""
        starts = self._starts(wanted)
        whole = [start for start in starts if self._is_whole(start, start + len(wanted))]
        return [self._span(start, wanted) for start in whole or starts]

    def nearest(self, wanted: str, behind: int) -> tuple[int, ...]:
        """The tokens where it stands nearest to so many characters from the end."""
        place = len(self.text) - behind
        return self._span(min(self._starts(wanted), key=lambda it: abs(it - place)), wanted)

    def _starts(self, wanted: str) -> list[int]:
        return [found.start() for found in re.finditer(f"(?={re.escape(wanted)})", self.text)]

    def _span(self, start: int, wanted: str) -> tuple[int, ...]:
        spans = self.tokens[start : start + len(wanted)]
        return tuple(sorted({token for span in spans for token in span}))

    def _is_whole(self, start: int, end: int) -> bool:
        """Whether no letter, digit or mark goes on at either end."""
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        goes_on = bool(before) and _in_word(before) and _in_word(self.text[start])
        if after and unicodedata.category(after) in ("Mn", "Me", "Mc"):
            return False  # a mark on the last letter makes another letter of it
        return not goes_on and not (after and _in_word(after) and _in_word(self.text[end - 1]))


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def _found(
    model: LanguageModel, token_ids: Sequence[int], subject: str, read: int, behind: int | None
) -> Subject:
    if not subject.strip():
        raise SaeGraphsError("the subject is empty; give some text of the prompt")
    prompt = _text_of(model, token_ids)
    for wanted in _spellings(model, subject):
        places = prompt.occurrences(wanted)
        if places and behind is not None:
            positions = prompt.nearest(wanted, behind)
            return Subject(positions, _which(subject, len(places), positions, "taken is the one"))
        before = [place for place in places if place[-1] < read]
        fitting = before or [place for place in places if place[-1] == read] or places
        if places:
            positions = fitting[-1]
            taken = "corrupted is the last one before the answer"
            return Subject(positions, _which(subject, len(places), positions, taken))
    raise SaeGraphsError(_not_there(prompt.text, subject))


def _text_of(model: LanguageModel, token_ids: Sequence[int]) -> _Text:
    """The prompt, BOS left out: no subject is part of it."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    data, owners = b"", list[int]()
    for place, token_id in enumerate(token_ids):
        if place == 0 and token_id == bos and len(token_ids) > 1:
            continue
        own = bytes_of(model.token_string(token_id))
        data += own
        owners += [place] * len(own)
    text, tokens, at = data.decode("utf-8", "surrogateescape"), [], 0
    for character in text:
        size = len(character.encode("utf-8", "surrogateescape"))
        tokens.append(tuple(sorted(set(owners[at : at + size]))))
        at += size
    return _Text(text, tokens)


def _spellings(model: LanguageModel, subject: str) -> Iterator[str]:
    """What the subject may be in the prompt, likeliest first."""
    given = subject.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    yield given
    for form in FORMS:
        yield unicodedata.normalize(form, given)
    if model.tokenizer is not None:
        ids = cast("list[int]", model.tokenizer(given, add_special_tokens=False)["input_ids"])
        read = joined(model.token_string(token_id) for token_id in ids).strip()
        if read:
            yield read


def _which(subject: str, n_places: int, positions: tuple[int, ...], taken: str) -> str:
    """What to know of a subject that comes several times."""
    if n_places < 2:
        return ""
    return (
        f"the subject {subject.strip()!r:.40} comes {n_places} times; {taken}, "
        f"token{'s' if len(positions) > 1 else ''} {', '.join(map(str, positions))}"
    )


def _not_there(text: str, subject: str) -> str:
    shown = subject.strip()
    at = text.casefold().find(shown.casefold())
    if at >= 0 and len(text.casefold()) == len(text):
        return (
            f"the subject {shown!r:.60} is not in the prompt; did you mean "
            f"{text[at : at + len(shown)]!r:.60}?"
        )
    return f"the subject {shown!r:.60} is not in the prompt; give a part of its text"


def looked_at(model: LanguageModel, case: Case, run: Run) -> Looked:
    """What a clean run makes of a case; raises `SaeGraphsError` where its subject is not found."""
    read = len(run) - 1
    if read < 1:
        raise SaeGraphsError("the prompt is one token, in which nothing is handed on")
    subject = find_subject(model, run.token_ids, case.subject, read).positions
    chances = run.logits[read].double().softmax(-1)
    top = int(chances.argmax())
    wanted = None
    if case.target is not None:
        wanted = model.token_string(model.tokenize(case.target, prepend_bos=False)[0])
    return Looked(run.tokens, subject, read, model.token_string(top), float(chances[top]), wanted)
