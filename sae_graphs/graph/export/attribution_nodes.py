"""At which tokens an attribution graph puts features, and which of those its viewers would drop."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

from sae_graphs.errors import quoted
from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.export.tables import context_text, peak_of, readable
from sae_graphs.graph.feature_id import FeatureId, feature_order
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Context, Node, OutputToken, RunRecord
from sae_graphs.text import shortened, visible

LONGEST = 160  # characters
_ANGLES = str.maketrans({"<": "‹", ">": "›"})


def place_of(graph: CausalGraph, node: Node) -> int:
    """The token that a node stands at."""
    run, feature = graph.run, node.feature
    if feature.position is not None:
        return feature.position
    read = run.summed_at if isinstance(run.summed_at, int) else run.read_position
    if feature.is_output or not node.activations or node.activations[read]:
        return read
    first = 0 if run.settings.get("ablate_first") else 1
    before = range(first, read)  # what comes later has no effect there
    best = max(before, key=lambda at: (abs(node.activations[at]), at), default=read)
    return best if node.activations[best] else read


def too_frequent(
    graph: CausalGraph, places: Mapping[FeatureId, int]
) -> tuple[frozenset[FeatureId], list[str]]:
    """The weakest nodes of features that are at more than two thirds of the tokens."""
    n_tokens = len(graph.run.tokens)
    most = 2 * n_tokens // 3
    strength: dict[FeatureId, list[float]] = defaultdict(list)
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            strength[end].append(edge.strength)
    same: dict[tuple[str, int], list[FeatureId]] = defaultdict(list)
    for feature in (each for each in places if not each.is_token):
        same[feature.layer, feature.index].append(feature)

    def weakest_last(feature: FeatureId) -> tuple[float, int]:
        return -math.fsum(strength[feature]), -places[feature]

    dropped = [
        feature for each in same.values() for feature in sorted(each, key=weakest_last)[most:]
    ]
    if not dropped:
        return frozenset(), []
    ordered = sorted(dropped, key=lambda each: feature_order(each, graph.depths))
    return frozenset(dropped), [
        f"left out of the attribution graph: {quoted(ordered)}; viewers drop what is at more than "
        f"two thirds of the {n_tokens} tokens, so the strongest positions alone are kept"
    ]


def lost_from_view(annotations: Annotations, left_out: frozenset[FeatureId]) -> list[str]:
    """What a reader pinned or grouped and the file does not hold."""
    pins = [feature for feature in annotations.pins if feature in left_out]
    told = [f"the pins {quoted(pins)}"] if pins else []
    for group in annotations.groups:
        if lost := [feature for feature in group.features if feature in left_out]:
            which = "all" if len(lost) == len(group.features) else quoted(lost)
            told.append(f"{which} of the group {safe(group.name)!r}")
    return [f"left out with them, of what you marked: {quoted(told)}"] if told else []


def safe(text: str) -> str:
    """One readable line that is no markup, wherever it is put: `<b>` becomes `‹b›`."""
    return readable(text).translate(_ANGLES)


def plain_text(text: str) -> str:
    """The text as it is, but for what files and databases refuse: control codes, half emoji."""
    return "".join(c if c in "\n\r\t" or _is_sound(c) else visible(c) for c in text)


def _is_sound(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs")


def feature_words(run: RunRecord, node: Node, label: str | None) -> str:
    """The reader's label, else Neuronpedia's explanation, else what the feature is active on."""
    words = next((text for text in (label, node.explanation) if text and text.strip()), None)
    return shortened(safe(words or _hint(run, node)), LONGEST)


def _hint(run: RunRecord, node: Node) -> str:
    for context in node.contexts:
        if any(context.activations) and (text := context_text(context)):
            return f'active on "{peak_of(context)}" in "{text.strip()}"'
    if any(node.activations):
        return f'active on "{peak_of(Context(run.tokens, node.activations))}" of the prompt'
    if node.promotes:
        return f'promotes "{node.promotes[0].token}"'
    return f"feature {node.feature}"


def logit_words(output: OutputToken, elsewhere: int | None = None) -> str:
    """`Output ")" (p=0.823)`: viewers fail where the probability is not found.

    They take the first `(p=`, and the token between the first two quotes, so neither may be part of
    the token. `elsewhere` is the position where that is not the one the probability is of.
    """
    words = f'Output "{_token(output.token)}"'
    if output.contrast is not None:
        words += f' - "{_token(output.contrast)}"'
    words += f" (p={output.probability:.3f})"
    return words if elsewhere is None else f"{words} where effects are read; here {elsewhere}"


def _token(text: str) -> str:
    words = safe(text).replace('"', "”")
    return shortened(re.sub(r"\(p=", "( p=", words), LONGEST)
