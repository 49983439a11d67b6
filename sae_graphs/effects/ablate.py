"""Set features to something and look at the output: `ablate`.

Every layer's features are encoded again on the stream as it is then, and each SAE's error stays,
as in all joint changes (`model/joint.py`).

Letters: `T` tokens, `U` features changed in a layer, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_graphs.effects.ablations import read_at
from sae_graphs.effects.changes import Change, Changes, parse_changes
from sae_graphs.effects.outcome import SHOWN, Ablation, NextToken
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.features.reference import Reference, references_of
from sae_graphs.graph.addresses import feature_at, is_address
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.keywords import with_model
from sae_graphs.model.answer import Answer, answer_of
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.joint import Become, Selected, changing, logits_of, run_edits
from sae_graphs.model.next_token import Question, scores, top_tokens


@with_model
@torch.no_grad()
def ablate(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    changes: Changes,
    *,
    read: int = -1,
    target: str | None = None,
    contrast: str | None = None,
    prepend_bos: bool | None = None,
) -> Ablation:
    """Set features to something, all together, and look at what comes next.

        sg.ablate(model, "Copyright (C", {"3.309": 0, "4.34@5": 2.0, "5.1": "x0.5"})

    An activation becomes the number given, or a multiple of what it is, `"x0.5"`, or its `"mean"`
    over reference text wherever it is active: at every token but the first, or at one token alone,
    as in `4.34@5`, which goes before what is said of `4.34`. Higher layers are encoded again on the
    changed stream, the SAEs' errors stay. The next token is that after `read`, negative from the
    end; its score is the log-odds of the `target`, the likeliest token where none is given, or with
    a `contrast` the difference of their logits.

    A feature that is inactive where it is scaled, or set to 0, is named in the `warnings`. Raises
    `SaeGraphsError` for a feature, a token or a value that is none.
    """
    with_features = with_saes(model)
    ids = {layer.label: layer.neuronpedia_id for layer in with_features.stack.layers}

    def feature_of(name: str | FeatureId) -> FeatureId:
        return feature_at(str(name), ids) if is_address(name) else FeatureId.parse(name)

    wanted = parse_changes(changes, feature_of)
    for change in wanted:
        _check_feature(with_features, change.feature)
    clean = with_features.clean_run(prompt, prepend_bos=prepend_bos)
    at = read_at(read, len(clean))
    for change in wanted:
        _check_token(clean, change.feature, at)
    answer = answer_of(with_features, clean, at, target=target, contrast=contrast)
    logits = changed_logits(with_features, clean, wanted, at)
    return _outcome(with_features, clean, wanted, answer, logits, at)


def changed_logits(
    model: InstrumentedModel,
    clean: CleanRun,
    changes: Sequence[Change],
    read: int,
    references: Sequence[Reference] | None = None,
) -> Tensor:
    """The logits `[V]` at the position `read` of a prompt with the changes made together.

    Means are those of the `references`, by depth; the stored ones where none are given.
    """
    if references is None and any(change.kind == "mean" for change in changes):
        references = references_of(model)
    edits = {}
    for depth, layer in enumerate(model.stack.layers):
        own = [change for change in changes if change.feature.layer == layer.label]
        if own:
            mean = None if references is None else references[depth].mean
            selected, become = _of_layer(clean, depth, own, mean)
            edits[depth] = changing(model, clean, depth, selected, become)
    return logits_of(model, clean, run_edits(model, clean, edits, 1, read), read)[0]


# -- the steps -------------------------------------------------------------------------------------


def _check_feature(model: InstrumentedModel, feature: FeatureId) -> None:
    depths = model.stack.depths
    if feature.layer not in depths:
        raise UnknownFeatureError(
            f"{feature}: no SAE layer {feature.layer!r}; choose from {quoted(depths, 40)}"
        )
    width = model.stack.layers[depths[feature.layer]].n_features
    if feature.index >= width:
        raise UnknownFeatureError(f"{feature}: layer {feature.layer} has features 0 to {width - 1}")


def _check_token(clean: CleanRun, feature: FeatureId, read: int) -> None:
    """Raises where a feature's token is none that can change what is read."""
    if feature.position is None:
        if read == 0:
            raise SaeGraphsError(
                f"{feature} is set at all tokens but the first, and the first is read; give more "
                f"text, or {feature}@0"
            )
    elif feature.position >= len(clean):
        raise UnknownFeatureError(f"{feature}: the prompt has tokens 0 to {len(clean) - 1}")
    elif feature.position > read:
        raise SaeGraphsError(
            f"{feature} comes after token {read}, which is read, and changes nothing there; give "
            "an earlier token, or a later read"
        )


def _of_layer(
    clean: CleanRun, depth: int, changes: Sequence[Change], mean: Tensor | None
) -> tuple[Selected, Become]:
    """Which of a layer's activations are changed, and what they become.

    `mean` `[F]` are those of the layer's features, where any becomes its mean.
    """
    device = clean.streams[depth].device
    indices = sorted({change.feature.index for change in changes})
    column = {index: number for number, index in enumerate(indices)}
    size = len(clean), len(indices)
    chosen = torch.zeros(size, dtype=torch.bool, device=device)
    is_set, is_mean = chosen.clone(), chosen.clone()
    values = torch.ones(size, dtype=torch.float64, device=device)
    for change in sorted(changes, key=lambda it: it.feature.position is not None):
        place = change.feature.position
        where = slice(1, None) if place is None else slice(place, place + 1)
        number = column[change.feature.index]
        chosen[where, number] = True
        is_set[where, number] = change.kind == "set"
        is_mean[where, number] = change.kind == "mean"
        values[where, number] = change.value if change.kind != "mean" else 1.0
    features = torch.tensor(indices, dtype=torch.int64, device=device)
    means = torch.zeros(len(indices), device=device) if mean is None else mean.to(device)[features]

    def become(here: Tensor, acts: Tensor) -> Tensor:  # [1, T, U]
        """Features that no row is asked of may be left out: those `here` are not."""
        kept = torch.tensor([column[index] for index in here.tolist()], device=acts.device)
        number = values[:, kept].to(acts.dtype)
        after = torch.where(is_set[:, kept], number, acts * number)
        usual = torch.where(acts != 0, means[kept].to(acts.dtype), acts)
        return torch.where(is_mean[:, kept], usual, after)

    return Selected(features, chosen[None]), become


def _outcome(
    model: InstrumentedModel,
    clean: CleanRun,
    changes: Sequence[Change],
    answer: Answer,
    logits: Tensor,
    read: int,
) -> Ablation:
    before = clean.logits[read]
    question = Question(before, answer.token_id, answer.contrast)
    shown = [*top_tokens(question, SHOWN), *top_tokens(Question(logits, 0), SHOWN)]
    shown += [it for it in (answer.token_id, answer.contrast) if it is not None]
    first, last = (values.double().softmax(-1) for values in (before, logits))
    tokens = [
        NextToken(model.token_string(it), it, float(first[it]), float(last[it]))
        for it in dict.fromkeys(shown)
    ]
    tokens.sort(key=lambda it: -max(it.before, it.after))
    other = answer.contrast
    return Ablation(
        model=model.name,
        saes=model.stack.name,
        prompt=clean.prompt,
        tokens=clean.tokens,
        read_position=read,
        changes=tuple(changes),
        answer=model.token_string(answer.token_id),
        score=float(answer.score(before)),
        score_after=float(answer.score(logits)),
        kl=float(scores(question, logits[None]).kl[0]),
        next_tokens=tuple(tokens),
        token_ids=clean.token_ids,
        contrast=None if other is None else model.token_string(other),
        warnings=tuple(
            f"{change.feature} is inactive at {_place_words(change.feature, read)}: "
            f"{change.words} changes nothing there, unless other changes wake it"
            for change in changes
            if change.takes_away and not _is_active(model, clean, change.feature, read)
        ),
    )


def _is_active(model: InstrumentedModel, clean: CleanRun, feature: FeatureId, read: int) -> bool:
    """Whether the clean run has it active at any token at which it is changed."""
    depth = model.stack.depths[feature.layer]
    index = torch.tensor([feature.index], device=clean.streams[depth].device)
    acts = clean.activations[depth].of(index)[:, 0]  # [T]
    place = feature.position
    return bool((acts[1 : read + 1] if place is None else acts[place : place + 1]).any())


def _place_words(feature: FeatureId, read: int) -> str:
    if feature.position is not None:
        return f"token {feature.position}"
    return "token 1" if read == 1 else f"tokens 1 to {read}"
