"""Output tokens: those that come next, and those whose logits are targets of a graph."""

from __future__ import annotations

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.records import OutputToken
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.next_token import token_id
from sae_graphs.settings import GraphSettings


def chosen_outputs(
    model: InstrumentedModel, clean: CleanRun, settings: GraphSettings, read: int
) -> tuple[OutputToken, ...]:
    """The tokens whose logits are targets, likeliest first, with clean values at `read`.

    Raises `SaeGraphsError` where a text that was given is not one token.
    """
    if not settings.has_outputs:
        return ()
    logits = clean.logits[read].float()
    probabilities = logits.softmax(-1)
    contrast = None if settings.contrast is None else token_id(model, settings.contrast)
    ids = [token_id(model, text) for text in settings.targets]
    if not ids:
        ids = probabilities.topk(min(settings.outputs or 1, len(probabilities))).indices.tolist()
    ids = sorted(set(ids) - {contrast}, key=lambda i: (-float(probabilities[i]), i))
    if not ids:
        raise SaeGraphsError("the contrast is the only target; give another token to compare")
    minus = 0.0 if contrast is None else float(logits[contrast])
    return tuple(
        OutputToken(
            token_id=i,
            token=model.token_string(i),
            logit=float(logits[i]) - minus,
            probability=float(probabilities[i]),
            contrast=None if contrast is None else model.token_string(contrast),
        )
        for i in ids
    )
