"""Whether two graphs can be compared, and what makes that hard."""

from __future__ import annotations

from collections.abc import Mapping

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.graph import CausalGraph

# Settings that decide which edges there are, and what their effects are; and what it means where
# a file from before a setting does not have it.
DECISIVE: Mapping[str, object] = {
    "select": "effect",
    "nodes": None,
    "dense": False,
    "top_k": None,
    "per": "layer",
    "min_path_edges": None,
    "ablate": "all",
    "ablate_first": False,
    "read": None,
    "layers": None,
    "pin": None,
    "outputs": 0,
    "targets": None,
    "contrast": None,
    "method": "exact",
    "steps": None,
    "intervention": "zero",
    "prepend_bos": None,
    "dtype": None,
    "summed_at": None,
}


def check_same_features(left: CausalGraph, right: CausalGraph) -> None:
    """Raise `SaeGraphsError` where a feature of one could not be the same as one of the other."""
    for side, given in (("left", left), ("right", right)):
        if not isinstance(given, CausalGraph):
            raise SaeGraphsError(
                f"the {side} graph is {given!r:.60}, not a CausalGraph; load a saved one with "
                "CausalGraph.load"
            )
    for name, what in (("model", "models"), ("saes", "SAEs")):
        ours, theirs = getattr(left.run, name), getattr(right.run, name)
        if ours != theirs:
            raise SaeGraphsError(
                f"the graphs are of different {what}, {ours!r:.60} and {theirs!r:.60}, so their "
                "features do not mean the same; compare graphs of one model and its SAEs"
            )
    places = {layer.label: layer.hook_point for layer in left.run.layers}
    for layer in right.run.layers:
        if places.get(layer.label, layer.hook_point) != layer.hook_point:
            raise SaeGraphsError(
                f"layer {layer.label} is {places[layer.label]!r:.60} in the left graph and "
                f"{layer.hook_point!r:.60} in the right one; compare graphs of the same SAEs"
            )
    if left.nodes and right.nodes and left.resolves_positions != right.resolves_positions:
        side = "left" if left.resolves_positions else "right"
        raise SaeGraphsError(
            f"only the {side} graph has token positions, so no feature is the same in both; "
            f"compare its sum over tokens, {side}.summed()"
        )


def comparison_warnings(left: CausalGraph, right: CausalGraph) -> list[str]:
    """What makes the two hard to compare."""
    told: list[str] = []
    answers = [_answer(left), _answer(right)]
    if answers[0] != answers[1] and None not in answers:
        told.append(
            f"the answers are {quoted(answers)}, so what supports one need not support the other"
        )
    differing = [
        f"{name} ({ours!r:.40} and {theirs!r:.40})"
        for name, default in DECISIVE.items()
        if (ours := _set(left, name, default)) != (theirs := _set(right, name, default))
    ]
    if differing:
        told.append(
            f"made with different settings: {quoted(differing, 20)}; an edge may be missing on one "
            "side only because fewer were kept, or others were measured, there"
        )
    told += _of_effects_at_tokens(left, right)
    contrasts = [{out.token_id: out.contrast for out in each.run.outputs} for each in (left, right)]
    changed = sorted(
        name
        for name in contrasts[0].keys() & contrasts[1].keys()
        if contrasts[0][name] != contrasts[1][name]
    )
    if changed:
        told.append(
            f"{quoted(f'out.{name}' for name in changed)} is set against another token in one "
            "graph than in the other, so its effects are of two quantities"
        )
    return told


def _of_effects_at_tokens(left: CausalGraph, right: CausalGraph) -> list[str]:
    """Where positions of graphs of effects are not the same tokens; of answers `aligned` tells."""
    both_answer = left.run.answer is not None and right.run.answer is not None
    resolved = bool(left.nodes) and left.resolves_positions
    if both_answer or not resolved or left.run.tokens == right.run.tokens:
        return []
    return [
        "the features have token positions, and position 3, say, is not the same token in both "
        "prompts; graph.summed() adds the tokens up to plain features"
    ]


def _answer(graph: CausalGraph) -> str | None:
    """The token that an answer graph is about."""
    return None if graph.run.answer is None else repr(graph.run.outputs[0].token)


def _set(graph: CausalGraph, name: str, default: object) -> object:
    value = graph.run.settings.get(name)
    return default if value is None or value == [] else value
