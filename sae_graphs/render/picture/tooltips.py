"""What hovering over a box says: all that its box has no room for."""

from __future__ import annotations

from sae_graphs.graph.anatomy import BlockShare
from sae_graphs.graph.feature_id import ANSWER
from sae_graphs.graph.names import (
    LOWERS_WORDS,
    RAISES_WORDS,
    name_of,
    number_words,
    shares_words,
    split_by_sign,
    standing_words,
    token_at,
)
from sae_graphs.graph.records import Context, Node, RunRecord
from sae_graphs.render.picture.explained import page_lines
from sae_graphs.render.picture.markup import in_tooltip
from sae_graphs.render.picture.remarks import NO_REMARKS, Remarks, remark_lines
from sae_graphs.text import shortened, token, visible, web_address
from sae_graphs.words import counted, percent, plain, probability_words, signed

MAX_TIP_TOKENS = 24


def box_tooltip(node: Node, run: RunRecord, remarks: Remarks = NO_REMARKS) -> str:
    """Activation per prompt token, contexts, token effects; before them what a reader said."""
    said = remark_lines(remarks)
    if node.feature.is_output:
        return in_tooltip("\n".join([*_output_lines(node, run), *said]))
    if node.feature.is_token:
        return in_tooltip("\n".join([name_of(run, node.feature), "a token of the prompt", *said]))
    here = token_at(run, node.feature)
    place = "the read token" if here is None else f"token {node.feature.position}, {here}"
    lines = [f"{node.feature}: activation {plain(node.activation)} at {place}"]
    lines += answer_lines(node)
    lines += [f"{what} {shares_words(shares)}" for what, shares in provenance(node)]
    lines += ["", *said] if said else []
    if node.page is not None:
        lines += ["", *page_lines(node)]
    if node.activations:
        lines += ["", "in this prompt:", *_prompt_lines(node, run)]
    if node.contexts:
        theirs = node.page is not None and node.page.gave_contexts
        lines += ["", "most active on (from Neuronpedia):" if theirs else "most active on:"]
        lines += [f"  {_context_line(context)}" for context in node.contexts]
    for label, effects in zip((LOWERS_WORDS, RAISES_WORDS), split_by_sign(node), strict=True):
        if effects:
            lines += ["", f"{label} (nats):"]
            lines += [f"  {token(item.token)}  {signed(item.effect_nats)}" for item in effects]
    if web_address(node.neuronpedia):
        lines += ["", "click for its page on Neuronpedia"]
    return in_tooltip("\n".join(lines))


def answer_lines(node: Node) -> list[str]:
    """What a feature does to the answer, where that was measured."""
    does = standing_words(node)
    if does is None:
        return []
    lines = [f"{does} nats: clean minus ablated at this token alone"]
    if node.direct_effect is not None:
        lines.append(
            f"of these {signed(-node.direct_effect)} past the features of all later SAE layers"
        )
    if node.density is not None:
        lines.append(f"on at {percent(node.density)} of the tokens of ordinary text")
    if node.relay:
        lines.append("a relay: here for what another feature hands on by it")
    return lines


def provenance(node: Node) -> tuple[tuple[str, tuple[BlockShare, ...]], ...]:
    """Which blocks wrote the feature, and which later ones scrub it; what is not known is left
    out."""
    known = ("written by", node.written_by), ("erased by", node.scrubbed_by)
    return tuple((what, shares) for what, shares in known if shares)


def _output_lines(node: Node, run: RunRecord) -> list[str]:
    output = run.output(node.feature)
    own = [] if node.feature == ANSWER else ["output token"]
    lines = [" ".join([*own, name_of(run, node.feature)])]
    here = token_at(run, node.feature)
    if here is not None:
        lines.append(f"as what follows token {node.feature.position}, {here}")
    if here is None or node.feature.position == run.read_position:
        lines.append(f"clean probability {probability_words(output.probability)}")
    return [*lines, f"clean {number_words(run, node.feature)} {plain(node.activation)}"]


def _prompt_lines(node: Node, run: RunRecord) -> list[str]:
    """The prompt's tokens on which the feature is active; of many, the most active ones."""
    active = [position for position, value in enumerate(node.activations) if value]
    active.sort(key=lambda position: -abs(node.activations[position]))
    strongest = active[:MAX_TIP_TOKENS]
    lines = [
        f"  {token(run.tokens[position])}  {plain(node.activations[position])}"
        for position in sorted(strongest)
    ]
    left = len(active) - len(strongest)
    return [*lines, *([f"  and {counted(left, 'token')} less"] if left else [])] or ["  not active"]


def _context_line(context: Context) -> str:
    text = "".join(visible(item) for item in context.tokens)
    peak = max(context.activations, key=abs, default=0.0)
    return f"{shortened(text, 100)}  ({plain(peak)})"
