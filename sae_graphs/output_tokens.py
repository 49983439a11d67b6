"""Output tokens: those that come next, and those whose logits are targets of a graph."""

from __future__ import annotations

from sae_graphs.clean_run import CleanRun
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.records import OutputToken
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.settings import GraphSettings

NEXT_TOKENS = 8


def next_tokens(
    model: InstrumentedModel, clean: CleanRun, read: int, limit: int = NEXT_TOKENS
) -> tuple[tuple[str, float], ...]:
    """The likeliest next tokens at the read position, with their probabilities."""
    top = clean.logits[read].float().softmax(-1).topk(min(limit, clean.logits.shape[-1]))
    return tuple(
        (model.token_string(token), probability)
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )


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


def token_id(model: InstrumentedModel, text: str) -> int:
    """The id of a token given by its text; raises `SaeGraphsError` where it is none or several."""
    ids = list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) != 1:
        pieces = quoted([repr(model.token_string(i)) for i in ids], 8)
        raise SaeGraphsError(
            f"{text!r} is {len(ids)} tokens of {model.name} ({pieces or 'none'}); "
            "give the text of one token, with its leading space if it has one"
        )
    return int(ids[0])
