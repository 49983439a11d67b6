"""Texts of a panel: from a file, a folder, or the bundled ones; as token ids. Torch-free.

A line of a text file is a text; so is a string of a JSON list, and a file of a folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import BUNDLED_TEXTS, bundled_folder

OWN = "the bundled model's own texts"
SUFFIXES = (".txt", ".md", ".text")
MOST = 2**16  # characters of a text that are looked at: more tokens than are read


def texts_in(place: Path) -> tuple[str, ...]:
    """The texts of a file or of a folder, empty ones left out.

    Raises `SaeGraphsError` where nothing can be read, or none is there.
    """
    try:
        found = _read(place)
    except (OSError, ValueError, RecursionError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)[:80]
        raise SaeGraphsError(
            f"cannot read texts from {place}: {reason}; give a UTF-8 text file with one text a "
            "line, a JSON list of strings, or a folder of text files"
        ) from problem
    texts = tuple(text for text in found if text.strip())
    if not texts:
        raise SaeGraphsError(f"{place} holds no text; give a file with one text a line")
    return texts


def bundled_texts() -> tuple[str, ...]:
    """Documents of the bundled model's language that it was not trained on."""
    return texts_in(bundled_folder() / BUNDLED_TEXTS)


def _read(place: Path) -> list[str]:
    if place.is_dir():
        files = sorted(it for it in place.rglob("*") if it.suffix.lower() in SUFFIXES)
        return [file.read_text(encoding="utf-8-sig") for file in files]
    text = place.read_text(encoding="utf-8-sig")
    if place.suffix.lower() != ".json":
        return text.splitlines()
    held = json.loads(text)
    if not isinstance(held, list) or not all(isinstance(it, str) for it in held):
        raise ValueError("it is no list of strings")
    return held


def token_ids(model: Any, texts: Sequence[str], *, length: int) -> list[tuple[int, ...]]:
    """The first `length` tokens of each text, BOS among them where the SAEs want it.

    Raises `SaeGraphsError` where there is no text, or one of them is none.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise SaeGraphsError(f"texts are {texts!r:.60}; expected a list of texts")
    if model.tokenizer is None:
        raise SaeGraphsError(f"{model.name} has no tokenizer; give it one, model.tokenizer")
    bos = model.tokenizer.bos_token_id
    head = (bos,) if model.prepend_bos and bos is not None else ()
    most = min(length, int(model.model.cfg.n_ctx))
    found = []
    for text in texts:
        whole = text[:MOST].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = tuple(model.tokenizer(whole, add_special_tokens=False)["input_ids"])
        found.append(((() if ids[:1] == head else head) + ids)[:most])
    return found
