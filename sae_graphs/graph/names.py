"""What things are called in pictures, pages and tables: `3.512@4`, `out.340 " )"`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.errors import quoted
from sae_graphs.graph.anatomy import Anatomy, BlockShare
from sae_graphs.graph.records import Edge, FeatureId, Node, OutputToken, RunRecord, TokenEffect
from sae_graphs.text import shortened, token, visible
from sae_graphs.words import MINUS, counted, percent, signed

MAX_PARTS = 6
SMALLEST = 0.001  # of a share: its sign says nothing below this
LEAST_SHARE = 0.05  # of the whole change: a block's part that is smaller is not named
CANCELLED = 0.05  # parts whose sum is a smaller share of their sizes are told as numbers


LOWERS_WORDS = "ablating lowers"
RAISES_WORDS = "ablating raises"


_PLACES = {"pre": "before", "mid": "inside", "post": "after"}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")


def name_of(run: RunRecord, feature: FeatureId) -> str:
    """A feature's name; that of an output token with its text, made visible."""
    if not feature.is_output:
        return str(feature)
    output = run.output(feature)
    words = f'{feature} "{visible(output.token, space=" ")}"'
    if output.contrast is not None:
        words += f' - "{visible(output.contrast, space=" ")}"'
    return words


def output_words(output: OutputToken, limit: int = 80) -> str:
    """An output token standing alone, every space shown, in at most `limit` characters; with a
    contrast `A - B`."""
    words = token(output.token)
    if output.contrast is None:
        return shortened(words, limit)
    other = token(output.contrast)
    room = limit - 3 - min(len(other), (limit - 3) // 2)
    words = shortened(words, room)
    return f"{words} - {shortened(other, limit - 3 - len(words))}"


def logit_words(output: OutputToken) -> str:
    """What an output token's number is called: its logit, or the difference of two."""
    return "logit" if output.contrast is None else "logit difference"


def token_at(run: RunRecord, feature: FeatureId) -> str | None:
    """The prompt's token at the feature's position, every space shown; None without a position."""
    return None if feature.position is None else token(run.tokens[feature.position])


def counted_nodes(nodes: Iterable[Node]) -> str:
    """`12 features`, or `12 features and 2 output tokens`."""
    kinds = [node.feature.is_output for node in nodes]
    words = counted(kinds.count(False), "feature")
    return words + (f" and {counted(kinds.count(True), 'output token')}" if any(kinds) else "")


def place_words(hook_point: str) -> str:
    """Where in the model an SAE layer is: `before block 5`.

    >>> place_words("blocks.11.hook_resid_post")
    'after block 11'
    """
    found = _HOOK.fullmatch(hook_point)
    return visible(hook_point) if found is None else f"{_PLACES[found[2]]} block {found[1]}"


def split_by_sign(node: Node) -> tuple[tuple[TokenEffect, ...], tuple[TokenEffect, ...]]:
    """The tokens that ablating the feature lowers, and those it raises; strongest first."""
    effects = sorted((*node.promotes, *node.suppresses), key=lambda item: -abs(item.effect_nats))
    lowered = tuple(item for item in effects if item.effect_nats < 0)
    raised = tuple(item for item in effects if item.effect_nats > 0)
    return lowered, raised


def largest_activation(node: Node) -> float:
    """What full blue stands for: the feature's largest |activation|, in its contexts and here.

    The first token is left out: it is the attention sink, where activations mean nothing.
    """
    values = [value for context in node.contexts for value in context.activations]
    values += node.activations[1:] or node.activations
    return max(map(abs, values), default=0.0)


def parts_of(anatomy: Anatomy) -> tuple[tuple[str, float], ...]:
    """`skip`, and the attention and MLP of each block by name; those of nothing are left out."""
    parts = [("skip", anatomy.skip)]
    for block in anatomy.blocks:
        parts += [(f"attention {block.block}", block.attention), (f"mlp {block.block}", block.mlp)]
    return tuple((name, value) for name, value in parts if value)


def anatomy_words(anatomy: Anatomy) -> str:
    """The parts, largest first, as shares of the pre-activation's change.

    Shares below 0 work against the change. Where the parts cancel, shares would say nothing, and
    the changes themselves are given.

    >>> anatomy_words(Anatomy(-0.6, (BlockAnatomy(4, -0.3, -0.1),)))
    'skip 60%, attention 4 30%, mlp 4 10%'
    """
    parts = sorted(parts_of(anatomy), key=lambda part: -abs(part[1]))
    total = anatomy.preactivation_effect
    told = [f"{name} {_share(value, total, parts)}" for name, value in parts[:MAX_PARTS]]
    left = len(parts) - len(told)
    return ", ".join(told + ([f"{left} smaller parts"] if left else [])) or "nothing"


def share_of(value: float, anatomy: Anatomy) -> str:
    """One part as a share of the pre-activation's change; empty where the parts cancel."""
    words = _share(value, anatomy.preactivation_effect, parts_of(anatomy))
    return words if words.endswith("%") else ""


def _share(value: float, total: float, parts: Iterable[tuple[str, float]]) -> str:
    if abs(total) <= CANCELLED * sum(abs(part) for _, part in parts):
        return signed(value)
    return signed_percent(value / total)


def signed_percent(share: float) -> str:
    """A share as per cent; one below 0 with a minus sign, where it is not next to nothing.

    >>> signed_percent(0.62), signed_percent(-0.02), signed_percent(-0.0001)
    ('62%', '−2.0%', '<0.1%')
    """
    return MINUS + percent(-share) if share <= -SMALLEST else percent(abs(share))


def strongest_part(anatomy: Anatomy) -> str:
    """The block's part with the largest change, and its head where heads are known.

    Empty where that is next to nothing of the whole change, which then came by the skip connection.

    >>> strongest_part(Anatomy(-0.6, (BlockAnatomy(4, -0.3, -0.1, (-0.3, 0.0)),)))
    'attention 4, head 0'
    """
    found: list[tuple[float, str, tuple[float, ...]]] = []
    for block in anatomy.blocks:
        found.append((abs(block.attention), f"attention {block.block}", block.heads))
        found.append((abs(block.mlp), f"mlp {block.block}", ()))
    size, name, heads = max(found, key=lambda part: part[0], default=(0.0, "", ()))
    if not size or size < LEAST_SHARE * abs(anatomy.preactivation_effect):
        return ""
    if not any(heads):
        return name
    return f"{name}, head {max(range(len(heads)), key=lambda head: abs(heads[head]))}"


def shares_words(shares: Iterable[BlockShare], limit: int = 3) -> str:
    """Contributions in words, the first `limit`.

    >>> shares_words([BlockShare("attention", 3, 0.62), BlockShare("embedding", None, 0.2)])
    'attention 3 (62%), embedding (20%)'
    """
    return ", ".join(
        f"{share.part if share.block is None else f'{share.part} {share.block}'} "
        f"({signed_percent(share.share)})"
        for share in list(shares)[:limit]
    )


def missing_words(run: RunRecord, edges: Iterable[Edge], *, measured: bool = False) -> list[str]:
    """Why edges have no anatomy, one line a reason; without those where it was not asked for if
    `measured`."""
    layers = {edge.source.layer for edge in edges if edge.anatomy is None}
    why: dict[str | None, list[str]] = {}
    for layer in run.layers:
        if layer.label in layers and not (measured and layer.no_anatomy is None):
            why.setdefault(layer.no_anatomy, []).append(layer.label)
    return [
        f"no anatomy from {'layer' if len(labels) == 1 else 'layers'} {quoted(labels, 20)}: "
        + ("it was not measured" if reason is None else visible(reason, space=" "))
        for reason, labels in why.items()
    ]
