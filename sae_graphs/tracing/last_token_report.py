"""What the read token looks at and how it moves, for the page of many prompts. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sae_graphs.render.document.blocks import Part, number, table, text
from sae_graphs.tracing.last_token import (
    FirstToken,
    LastToken,
    Looked,
    by_head,
    by_layer,
    diffuse_layers,
)
from sae_graphs.words import NONE, counted, percent, said

Tokens = Mapping[str, Sequence[LastToken]]
HEAD = (
    "Category",
    "Prompts",
    "To the first token",
    "Most to the corrupted",
    "Diffuse layers",
    "Moves most",
    "Turns most",
)


def told_of_tokens(tokens: Tokens) -> Iterator[str]:
    """Where attention is diffuse, and which head looks at the corrupted token most, in words."""
    for category, those in tokens.items():
        diffuse = diffuse_layers(by_layer(those, "entropy").mean(axis=0))
        where = f"diffuse in layers {diffuse}" if diffuse else "diffuse in no layer"
        first = percent(float(by_layer(those, "first").mean()))
        yield (
            f"{said(category)}: the read token gives {first} of its attention to the first token; "
            f"it looks at the corrupted one most with {_most(those)}; its attention is {where}."
        )


def token_table(tokens: Tokens) -> list[Part]:
    """A line a category: its attention and its motion."""
    rows = []
    for category, those in tokens.items():
        speed, cosine = (by_layer(those, name).mean(axis=0) for name in ("velocity", "cosine"))
        rows.append(
            [
                text(category),
                number(str(len(those))),
                number(percent(float(by_layer(those, "first").mean()))),
                text(_most(those)),
                text(diffuse_layers(by_layer(those, "entropy").mean(axis=0)) or NONE),
                number(f"layer {int(speed.argmax())}"),
                number(f"layer {int(cosine.argmin())}"),
            ]
        )
    return table("The read token in the clean run, means over prompts", HEAD, rows)


def first_token_table(found: FirstToken) -> list[Part]:
    """Attention to the first token of a long text, by position."""
    rows = []
    for where, layers in zip(found.stretches, found.shares, strict=True):
        most = int(np.argmax(layers))
        rows.append(
            [
                text(where),
                number(percent(float(np.mean(layers)))),
                number(f"{percent(layers[most])} in layer {most}"),
            ]
        )
    caption = f"Attention to the first of {counted(found.tokens, 'token')}, mean over heads"
    return table(caption, ("Positions", "All layers", "Most"), rows)


def strongest(those: Sequence[LastToken], name: Looked = "corrupted") -> tuple[int, int, float]:
    """The layer and head that look there most, on average, and the share."""
    shares = by_head(those, name)
    layer, head = np.unravel_index(int(shares.argmax()), shares.shape)
    return int(layer), int(head), float(shares[layer, head])


def _most(those: Sequence[LastToken]) -> str:
    layer, head, share = strongest(those)
    return f"head {head} of layer {layer} ({percent(share)})"


MEANINGS = (
    ("diffuse", "the entropy of the read token's attention, mean over heads, is half or more of "
     "the most it could be"),
    ("moves, turns", "the block that changes the read token's state by the longest vector, and "
     "the one after which it is least like the state before, by cosine"),
)  # fmt: skip
