"""`Vocabulary`: what each token is shown as, and the token that is shown so.

No two tokens are shown alike: one that was added to the vocabulary and looks like another is shown
as its id. A byte that is no character by itself is shown as `<0xC3>`, a token
that the tokenizer does not know, or one of a model that has none, as `#50300`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from sae_graphs.text import bytes_shown, token, visible

log = logging.getLogger(__name__)

BYTE = "�"  # what a decoder makes of a byte that is no character
SPACE_PIECE = "▁"  # the space of sentencepiece
END_PIECE = "</w>"  # the end of a word, where pieces of words have none
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ID = re.compile(r"#([0-9]{1,9})")


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level tokenizers, GPT-2's first, write for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {
        byte: chr(0x100 + number) for number, byte in enumerate(others)
    }


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


class Vocabulary:
    """The tokens of a tokenizer, or of none; `size` counts the model's, which may be more."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer = tokenizer
        self.size = size
        self._shown: dict[int, str] = {}

    # -- a token to its text -----------------------------------------------------------------------

    def shown(self, token_id: int) -> str:
        """A token's text, with the leading space that sentencepiece tokenizers hide."""
        if token_id not in self._shown:
            self._shown[token_id] = self._read(token_id)
        return self._shown[token_id]

    def _read(self, token_id: int) -> str:
        piece = self._piece(token_id)
        if piece is None:
            return f"#{token_id}"
        if isinstance(piece, bytes):
            return bytes_shown(piece)
        if piece.startswith(SPACE_PIECE):
            return piece.replace(SPACE_PIECE, " ")
        if token_id in self._added:  # these stand for themselves, whatever a decoder makes of them
            taken = _ID.fullmatch(piece) or self._is_taken(piece, token_id)
            return f"#{token_id}" if taken else piece
        if piece.endswith(END_PIECE):
            return piece.removesuffix(END_PIECE) + " "
        text = self._decoded(token_id)
        if _BYTE_PIECE.fullmatch(piece) and text != piece:
            alone = len(text) == 1 and text != BYTE and not self._has_piece_for(text)
            return text if alone else piece
        if BYTE in text:
            data = _byte_level(piece)
            return piece if data is None else bytes_shown(data)
        return text or piece

    @cached_property
    def _added(self) -> frozenset[int]:
        """Tokens that were added to the vocabulary and may look like those that are in it."""
        added = getattr(self.tokenizer, "added_tokens_decoder", None) or {}
        return frozenset(int(token_id) for token_id in added)

    def _is_taken(self, text: str, token_id: int) -> bool:
        """Whether a token that was not added is shown as a text, too."""
        alike = [*self._pieces_of(text), self.with_bytes(text)]
        others = {each for each in alike if each is not None} - self._added - {token_id}
        return any(self.shown(each) == text for each in others)

    def _piece(self, token_id: int) -> str | bytes | None:
        """The token as the vocabulary holds it; None where it does not."""
        if self.tokenizer is None:
            return None
        try:
            piece = self.tokenizer.convert_ids_to_tokens(token_id)
        except (IndexError, KeyError, OverflowError):
            return None
        return piece if isinstance(piece, str | bytes) else None

    def _decoded(self, token_id: int) -> str:
        return str(self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False))

    def _has_piece_for(self, character: str) -> bool:
        """Whether a token stands for a character that a byte could stand for, too."""
        return any(
            self._id_of_piece(piece) is not None
            for piece in {character, character.replace(" ", SPACE_PIECE)}
        )

    # -- a text to its token -----------------------------------------------------------------------

    def with_text(self, text: str) -> int | None:
        """The token that is shown as `text`, exactly, else as pictures show it; None for none."""
        for token_id in self._likely(text):
            if self.shown(token_id) == text:
                return token_id
        found = self._by_text.get(text)
        return self._by_picture.get(text) if found is None else found

    def with_id(self, text: str) -> int | None:
        """The id in `#276`, whether the model has it or not; None for other texts."""
        found = _ID.fullmatch(text)
        return None if found is None else int(found[1])

    def with_bytes(self, text: str) -> int | None:
        """The token of exactly the bytes in `<0x0A>` or `<0xE2><0x80>`; None without one."""
        numbers = _BYTE_PIECE.findall(text)
        if not numbers or _BYTE_PIECE.sub("", text):
            return None
        data = bytes(int(number, 16) for number in numbers)
        pieces = ["".join(_LETTERS[byte] for byte in data)]
        if len(data) == 1:
            pieces.insert(0, f"<0x{data[0]:02X}>")
        for piece in pieces:
            token_id = self._id_of_piece(piece)
            if token_id is None or token_id in self._added:  # text, whatever it looks like
                continue
            if self._stands_for(token_id, data):
                return token_id
        return None

    def _stands_for(self, token_id: int, data: bytes) -> bool:
        """Whether a token is these bytes: shown as them, or as the characters that they are."""
        escaped = "".join(f"<0x{byte:02X}>" for byte in data)
        return self.shown(token_id) in (bytes_shown(data), escaped)

    def _id_of_piece(self, piece: str) -> int | None:
        """The id of a token as the vocabulary holds it; None where it does not."""
        token_id = self.tokenizer.convert_tokens_to_ids(piece)
        if not isinstance(token_id, int) or self._piece(token_id) != piece:
            return None  # the tokenizer's word for what it does not know
        return token_id

    def _likely(self, text: str) -> Iterator[int]:
        """Tokens that may be shown as a text: what it is read as, and pieces that spell it."""
        if self.tokenizer is None:
            return
        read = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(read) == 1:
            yield int(read[0])
        yield from self._pieces_of(text)

    def _pieces_of(self, text: str) -> Iterator[int]:
        """Tokens whose pieces spell a text in one of the ways that there are."""
        spelled = "".join(_LETTERS[byte] for byte in text.encode("utf-8", "replace"))
        for piece in dict.fromkeys((text, text.replace(" ", SPACE_PIECE), spelled)):
            token_id = self._id_of_piece(piece)
            if token_id is not None:
                yield token_id

    @cached_property
    def _by_text(self) -> dict[str, int]:
        """Every token by its text, the first of those that are alike."""
        found: dict[str, int] = {}
        for token_id in range(self.size):
            found.setdefault(self.shown(token_id), token_id)
        return found

    @cached_property
    def _by_picture(self) -> dict[str, int]:
        """Tokens by what pictures and tables show: `␣the`, `↵`; what stands for two is left out."""
        found: dict[str, set[int]] = {}
        for text, token_id in self._by_text.items():
            for drawn in {token(text), visible(text, space=" ")} - {text}:
                found.setdefault(drawn, set()).add(token_id)
        return {drawn: min(ids) for drawn, ids in found.items() if len(ids) == 1}


def _byte_level(piece: str) -> bytes | None:
    """The bytes that a piece of a byte-level tokenizer stands for; None where it is none."""
    if not all(letter in _BYTES for letter in piece):
        return None
    return bytes(_BYTES[letter] for letter in piece)


def prepends_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer puts BOS before a text when left to itself.

    TransformerLens tells its copy to do so whatever the model's own does: asked is the one that is
    stored where that copy came from; without it, the one given.
    """
    stored = tokenizer
    if source := getattr(tokenizer, "name_or_path", None):
        try:
            stored = type(tokenizer).from_pretrained(source, local_files_only=True)
        except (OSError, ValueError, TypeError):  # moved away since
            log.debug("the tokenizer of %s is no longer there", source)
    bos = stored.bos_token_id
    return bos is not None and list(stored("a")["input_ids"])[:1] == [bos]
