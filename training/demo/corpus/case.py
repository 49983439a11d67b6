"""What a held-out question is, and the one rule that decides what is held out.

Every phenomenon names each of its cases by a *key* (the pair of names, the letters of the acronym,
the random string ...). A key is held out or not by a hash of its text alone, so the training
stream and the held-out cases can never share one, whatever the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_PER_MILLE = 100


@dataclass(frozen=True)
class Case:
    """One question to the model.

    prompt: the text before the read position (no beginning-of-text marker).
    answer: the text that must follow; the first token of it is what is asked.
    marker: a text in the prompt (or in prompt plus answer) that never occurs in training.
    deciding: the characters of the prompt on which the answer hangs, as (start, end) in order;
        every token that holds one of them is a deciding token. Known from how the case is made,
        before any model is asked; empty where nothing of the kind is known.
    """

    phenomenon: str
    prompt: str
    answer: str
    marker: str
    deciding: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt or not self.answer:
            raise ValueError(f"a case needs a prompt and an answer, got {self!r}")
        if not self.marker or self.marker not in self.prompt + self.answer:
            raise ValueError(f"the marker {self.marker!r} is not in {self.prompt + self.answer!r}")
        least = 0
        for start, end in self.deciding:
            if not least <= start < end <= len(self.prompt):
                raise ValueError(
                    f"deciding spans must be in the prompt (0 to {len(self.prompt)}), in order, "
                    f"apart and not empty, got {self.deciding}"
                )
            least = end


def is_held_out(*key: str, per_mille: int = HELD_OUT_PER_MILLE) -> bool:
    """True for about `per_mille` keys in a thousand, decided by a hash of the key's text."""
    digest = hashlib.blake2b("\x1f".join(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 1000 < per_mille
