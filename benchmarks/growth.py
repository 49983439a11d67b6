"""How our time grows: one size varied, the others held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Growth(NamedTuple):
    """Our time by one size. `ablations` and `seconds` have one entry for each of `sizes`."""

    what: str
    sizes: list[int]
    ablations: list[int]
    seconds: list[float]


def growth_of(
    cells: Sequence[Mapping[str, Any]],
    turns: Mapping[str, Mapping[str, Mapping[str, float]]],
    shaped: Sequence[Mapping[str, Any]],
) -> list[Growth]:
    """By tokens, active features, layers, width and features of an SAE.

    `turns` are the times by prompt length that took turns; the first of the `shaped` cells is the
    model that the others differ from in one size each.
    """
    found = []
    counts = {str(cell["tokens"]): cell["ablations"] for cell in cells if cell["mode"] == "read"}
    for name, timings in turns.items():
        found.append(
            Growth(
                f"tokens, read{'' if name == 'ours' else f': {name}'}",
                [int(tokens) for tokens in timings],
                [counts.get(tokens, max(counts.values(), default=0)) for tokens in timings],
                [timing["median"] for timing in timings.values()],
            )
        )
    every = [cell for cell in cells if cell["mode"] == "all"]
    usual = [cell["active"]["wanted"] for cell in every]
    if every:
        middle = max(set(usual), key=usual.count)
        found.append(
            _growth(
                "tokens, all",
                [(cell["tokens"], cell) for cell in every if cell["active"]["wanted"] == middle],
            )
        )
        tokens = [cell["tokens"] for cell in every]
        shared = max(set(tokens), key=tokens.count)
        found.append(
            _growth(
                f"active features, all, {shared} tokens",
                [(cell["active"]["wanted"], cell) for cell in every if cell["tokens"] == shared],
            )
        )
    found += [
        _growth(f"{words} (small model)", [(cell["sizes"][size], cell) for cell in pair])
        for size, words in (
            ("n_layers", "layers"),
            ("d_model", "width"),
            ("n_features", "SAE features"),
        )
        for pair in [_varied(shaped, size)]
    ]
    return [growth for growth in found if len(growth.sizes) > 1]


def _growth(what: str, cells: Sequence[tuple[int, Mapping[str, Any]]]) -> Growth:
    ordered = sorted(cells, key=lambda pair: pair[0])
    return Growth(
        what,
        [size for size, _ in ordered],
        [cell["ablations"] for _, cell in ordered],
        [cell["seconds"]["ours"]["median"] for _, cell in ordered],
    )


def _varied(shaped: Sequence[Mapping[str, Any]], size: str) -> list[Mapping[str, Any]]:
    """The first cell, and those that have another such size."""
    first = shaped[:1]
    return [
        *first,
        *(cell for cell in shaped[1:] if cell["sizes"][size] != first[0]["sizes"][size]),
    ]
