"""What things are called in pictures, pages and tables: `3.512@4`, `out.340 " )"`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from sae_graphs.errors import quoted
from sae_graphs.graph.anatomy import Anatomy, BlockShare
from sae_graphs.graph.answer import Coverage
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.records import Edge, Node, OutputToken, RunRecord, TokenEffect
from sae_graphs.text import shortened, token, visible
from sae_graphs.words import MINUS, counted, percent, plain, probability_words, signed

MAX_PARTS = 6
SMALLEST = 0.001  # of a share: its sign says nothing below this
LEAST_SHARE = 0.05  # of the whole change: a block's part that is smaller is not named
CANCELLED = 0.05  # parts whose sum is a smaller share of their sizes are told as numbers


LOWERS_WORDS = "ablating lowers"
RAISES_WORDS = "ablating raises"


_PLACES = {"pre": "before", "mid": "inside", "post": "after"}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")


def name_of(run: RunRecord, feature: FeatureId) -> str:
    """A feature's name; that of an output token, or of one of the prompt, with its text."""
    if feature.is_token and feature.position is not None:
        return f'{feature} "{visible(run.tokens[feature.position], space=" ")}"'
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


def number_words(run: RunRecord, feature: FeatureId) -> str:
    """What an output node's number is called: a logit, the answer's log-odds, a difference."""
    output = run.output(feature)
    return score_words(output) if feature == ANSWER else logit_words(output)


def score_words(answer: OutputToken) -> str:
    """What the score of an answer is called."""
    return "log-odds" if answer.contrast is None else "logit difference"


def score_sentence(run: RunRecord) -> str:
    """`log-odds of " Mary" 7.75 nats, probability >99.9%`; of an answer graph."""
    answer = run.outputs[0]
    score = 0.0 if run.answer is None else run.answer.score
    return (
        f"{score_words(answer)} of {output_words(answer)} {plain(score)} nats, probability "
        f"{probability_words(answer.probability)}"
    )


def coverage_sentence(coverage: Coverage | None) -> str:
    """How much hangs on the kept features together, beside random ones."""
    if coverage is None:
        return "How much of the answer these account for was not measured"
    lost, left = coverage.lost, coverage.left
    if lost is None or left is None or coverage.without_any >= coverage.clean:
        return "Ablating all rarely-on features together takes nothing from the score"
    told = (
        f"Of what all rarely-on features together contribute, ablating the kept ones takes "
        f"{percent(max(lost, 0.0))}"
    )
    if coverage.random_lost is not None:
        told += f" (as many random ones {percent(max(coverage.random_lost, 0.0))})"
    told += f", and keeping them alone leaves {percent(max(left, 0.0))}"
    if coverage.random_left is not None:
        told += f" (random ones {percent(max(coverage.random_left, 0.0))})"
    return told


def token_at(run: RunRecord, feature: FeatureId) -> str | None:
    """The prompt's token at the feature's position, every space shown; None without a position."""
    return None if feature.position is None else token(run.tokens[feature.position])


def counted_nodes(nodes: Iterable[Node]) -> str:
    """`12 features and 2 output tokens`, or `12 features, 2 tokens and the answer`."""
    features = [node.feature for node in nodes]
    outputs = sum(feature.is_output and feature != ANSWER for feature in features)
    tokens = sum(feature.is_token for feature in features)
    parts = [counted(sum(feature.is_feature for feature in features), "feature")]
    parts += [counted(tokens, "token")] if tokens else []
    parts += [counted(outputs, "output token")] if outputs else []
    parts += ["the answer"] if ANSWER in features else []
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def standing_words(node: Node, digits: int = 3) -> str | None:
    """What a feature does to the answer, as the reader thinks it: `supports +11.3`, `relay +2`.

    The number is its contribution, clean minus ablated, in nats: positive helps. None where that
    was not measured.
    """
    if node.effect_on_answer is None:
        return None
    does = "relay" if node.relay else "opposes" if opposes(node) else "supports"
    return f"{does} {signed(-node.effect_on_answer, digits)}"


def does_words(node: Node) -> str:
    """The same in words: `supports by 9.70 nats`; empty where that was not measured."""
    if node.effect_on_answer is None:
        return ""
    if node.relay:
        return f"relay, {plain(-node.effect_on_answer)} nats"
    does = "opposes" if opposes(node) else "supports"
    return f"{does} by {plain(abs(node.effect_on_answer))} nats"


def opposes(node: Node) -> bool:
    """True where ablating the feature raises the answer's score."""
    return node.effect_on_answer is not None and node.effect_on_answer > 0


def number_of(edge: Edge) -> float:
    """The number at an arrow: its effect, ablated minus clean; in an answer graph what it
    contributes to the answer, clean minus ablated, in nats: positive helps."""
    return edge.effect if edge.flow is None else -edge.flow


def drawn_effect(edge: Edge) -> float:
    """What an arrow's width and hue stand for: the effect's sign, and the edge's strength."""
    return math.copysign(edge.strength, edge.effect)


def flow_words(edge: Edge) -> str | None:
    """What of the answer flows along an edge, in words; None where that was not measured."""
    if edge.flow is None:
        return None
    told = f"{signed(-edge.flow)} nats of the answer's score flow along it"
    if edge.relative_effect is None:
        return told
    return f"{signed_percent(edge.relative_effect)} of the target's activation; {told}"


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
