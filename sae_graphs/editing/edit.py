"""`edit`: a fact written into one MLP as a rank-one update of its output projection.

1. The prompts, and the projection. 2. The covariance of its keys. 3. The key. 4. The value. 5. The
update. 6. What the model says then.

Method: Meng et al., "Locating and Editing Factual Associations in GPT" (2022), with one key in both
places: Gupta, Baskaran and Anumanchipalli, "Rebuilding ROME" (2024).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs._version import __version__
from sae_graphs.bars import Progress, heard, step, with_bar
from sae_graphs.editing.applied import edited, replaced
from sae_graphs.editing.covariance import (
    Covariance,
    Text,
    check_covariance,
    covariance_of,
    text_of,
)
from sae_graphs.editing.projection import Projection, check_projection, digest_of, projection_of
from sae_graphs.editing.prompts import Placed, Rows, placed, prefixes_of, target_of
from sae_graphs.editing.record import Answer, Edit
from sae_graphs.editing.settings import EditSettings, Method, Token
from sae_graphs.editing.update import Solvable, Update, rank_one
from sae_graphs.editing.value import Found, value_for
from sae_graphs.errors import SaeGraphsError
from sae_graphs.keywords import with_settings
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.next_token import next_tokens
from sae_graphs.text import visible
from sae_graphs.words import said

ESSENCE = "{} is a"
ROUNDED = 1e-3  # of what the value gains: more than this lost to rounding is said


@with_bar("finding the value")
@with_settings(EditSettings, loader="load_model")
def edit(
    model: LanguageModel,
    *,
    subject: str,
    prompt: str,
    target: str,
    layer: int | None = None,
    token: Token = "subject-last",
    method: Method = "rome",
    prefixes: int = 8,
    steps: int = 30,
    rate: float = 0.03,
    stop: float = 0.03,
    kl: float = 0.0625,
    bound: float = 4.0,
    tokens: int = 100_000,
    ridge: float | None = None,
    seed: int = 0,
    settings: EditSettings | None = None,
    texts: str | Path | Sequence[str] | Text | None = None,
    covariance: Covariance | None = None,
    prepend_bos: bool | None = None,
    progress: Progress | bool | None = None,
) -> Edit:
    """Write a fact into one MLP: the `Edit`, which is in force where it is `applied`.

    `prompt` has `{}` where the `subject` goes, or the subject itself; after it the model is to say
    `target`, of which the first token is written. The options from `layer` to `seed` are those of
    `EditSettings`, which says what each does; or give `settings` whole. A model is a
    `LanguageModel`, or what `load_model` takes for one: GPT-2, GPT-NeoX, Llama, Gemma, Qwen and
    all whose MLP ends in one projection; it is left as it is.

    `texts` are what the covariance is taken over and prefixes are drawn from, a file or pieces; by
    default a bundled text. A covariance that was taken before can be given. `progress` is told the
    tokens of the covariance, where that is to be taken, and the steps of each search for the value;
    or True for a bar.

    Raises `SaeGraphsError` where the subject is not in the prompt, there is no such layer, or the
    covariance is of another model.
    """
    begun = time.perf_counter()
    settings, told = settings or EditSettings(), heard(progress)
    if not isinstance(model, LanguageModel):
        raise SaeGraphsError(
            f"{model!r:.60} is no language model; give one that sae_graphs.load_model made"
        )
    prompt = template_of(prompt, subject)
    at = settings.layer_of(len(model.model.blocks))
    text = text_of(model, texts)
    made = prepared(
        model, subject, prompt, target, at, text, settings=settings, prepend_bos=prepend_bos
    )
    if covariance is None:
        covariance = covariance_of(
            model,
            at,
            text,
            settings.tokens,
            progress=told,
            told=lambda line: step(told, visible(line, space=" ")),
        )
    check_covariance(model, covariance, made.projection)
    found = value_for(made.rows, made.essence, made.target, settings, progress=told)
    return _assembled(model, subject, prompt, made, covariance, found, settings, begun)


class Prepared(NamedTuple):
    """All that is asked of one fact: prompts with prefixes, "{subject} is a", the target."""

    projection: Projection
    rows: Rows
    essence: Rows
    bare: Placed
    target: int
    notes: tuple[str, ...]


def template_of(prompt: str, subject: str) -> str:
    """A prompt with `{}` in place of its subject.

    >>> template_of("The Eiffel Tower is in", "Eiffel Tower"), template_of("{} is in", "Rome")
    ('The {} is in', '{} is in')

    Raises `SaeGraphsError` where the prompt has neither once.
    """
    for name, value in (("prompt", prompt), ("subject", subject)):
        if not isinstance(value, str) or not value.strip():
            raise SaeGraphsError(f"the {name} is {value!r:.40}; give some text")
    if prompt.count("{}") == 1:
        return prompt
    if "{}" in prompt:
        raise SaeGraphsError(f"the prompt {said(prompt)} has {{}} more than once; give one")
    if subject not in prompt:
        raise SaeGraphsError(
            f"the subject {said(subject)} is not in the prompt {said(prompt)}; give a part of its "
            "text, or a prompt with {} where the subject goes"
        )
    words = list(re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt))
    at = words[-1].start() if words else prompt.rindex(subject)
    return f"{prompt[:at]}{{}}{prompt[at + len(subject) :]}"


def prepared(
    model: LanguageModel,
    subject: str,
    prompt: str,
    target: str,
    layer: int,
    text: Text,
    *,
    settings: EditSettings,
    prepend_bos: bool | None = None,
) -> Prepared:
    """The prompts of one fact, run once. `prompt` has `{}`."""
    asked = prompt.replace("{}", subject)
    wanted = target_of(model, asked, target, prepend_bos=prepend_bos)
    model.run(asked, prepend_bos=prepend_bos)  # the first prompt of a model is checked
    before = prefixes_of(
        model, text.read(), settings.prefixes, seed=settings.seed, without=(subject, target)
    )
    projection = projection_of(model.model, layer)
    stands = prompt.index("{}")  # characters before the subject
    found = [
        placed(
            model,
            *(words + asked, subject, settings.token),
            before=len(words) + stands,
            prepend_bos=prepend_bos,
        )
        for words in ("", *before)
    ]
    again = "" if settings.token == "last" else found[0].note
    essence = placed(
        model,
        *(ESSENCE.replace("{}", subject), subject, settings.token),
        before=ESSENCE.index("{}"),
        prepend_bos=prepend_bos,
    )
    with torch.no_grad():
        rows = Rows(model, projection, found)
        check_projection(projection, rows.read.flatten(0, 1), rows.written.flatten(0, 1))
        notes = tuple(filter(None, (wanted.note, again)))
        one = Rows(model, projection, [essence])
        return Prepared(projection, rows, one, found[0], wanted.token_id, notes)


def update_of(made: Prepared, covariance: Solvable, change: Tensor, method: Method) -> Update:
    """The rank-one update for a change of the value; the first of the prompts has no prefix."""
    keys = made.rows.keys.double()
    bare = keys[0] if method == "rome-mixed-keys" else None
    return rank_one(covariance, keys.mean(0), change, divisor_key=bare)


@torch.no_grad()
def _assembled(
    model: LanguageModel,
    subject: str,
    prompt: str,
    made: Prepared,
    covariance: Covariance,
    found: Found,
    settings: EditSettings,
    begun: float,
) -> Edit:
    solved = covariance.solvable(settings.ridge)
    update = update_of(made, solved, found.change, settings.method)
    weights = made.projection.weights
    notes = [*made.notes, *((solved.note,) if solved.note else ()), *_remarks(found, settings)]
    before = _answer(model, made)
    partial = Edit(
        subject=subject,
        prompt=prompt,
        target=model.token_string(made.target),
        target_id=made.target,
        model=model.name,
        layer=made.projection.block,
        weights=digest_of(weights.matrix),
        right=update.right.cpu().numpy(),
        left=update.left.cpu().numpy(),
        settings=settings,
        before=before,
        after=before,
        surprisal=found.surprisal,
    )
    matrix = edited(weights.matrix, partial)
    notes += _off(weights.matrix, matrix, made.rows.keys, update, settings.method)
    with replaced(weights, matrix):
        after = _answer(model, made)
    values = {name: getattr(partial, name) for name in partial.__dataclass_fields__}
    about = _about(made, covariance, solved, update, found, begun)
    return Edit(**{**values, "after": after, "warnings": tuple(notes), "about": about})


def _off(before: Tensor, after: Tensor, keys: Tensor, update: Update, method: Method) -> list[str]:
    """A remark where the weights, as rounded, do not give the value that was found."""
    key = (keys[0] if method == "rome-mixed-keys" else keys.mean(0)).double()
    missed = float(((after.double() - before.double()) @ key - update.right).norm())
    share = missed / max(float(update.right.norm()), torch.finfo(torch.float64).tiny)
    if share <= ROUNDED:
        return []
    return [
        f"the key gives the value but for {share:.1%} of what was to be added: the weights are too "
        "coarse for so small a change; load the model in float64"
    ]


def _remarks(found: Found, settings: EditSettings) -> list[str]:
    """What to know of a search that did not go as one hopes."""
    if not found.change.any():
        if len(found.surprisal) == 1:  # no step was made
            return ["the model says the target already: nothing was changed"]
        return [
            "what the MLP writes there does not reach the answer: nothing was changed; choose "
            "another token or layer"
        ]
    if found.at_bound:
        return [
            f"what is added to the MLP's output reached its bound, {settings.bound:g} times that "
            "output: the target may not be said"
        ]
    return []


def _answer(model: LanguageModel, made: Prepared) -> Answer:
    run = model.run(made.bare.ids)
    chance = float(run.logits[-1].double().softmax(-1)[made.target])
    return Answer(chance, next_tokens(model, run, len(run) - 1))


def _about(
    made: Prepared,
    covariance: Covariance,
    solved: Solvable,
    update: Update,
    found: Found,
    begun: float,
) -> dict[str, Any]:
    matrix = made.projection.weights.matrix
    size = float(update.right.norm() * update.left.norm())
    return {
        "sae_graphs": __version__,
        "seconds": round(time.perf_counter() - begun, 3),
        "token": made.bare.at,
        "prompts": len(made.rows.at),
        "covariance": {
            "text": covariance.text,
            "tokens": covariance.tokens,
            "inputs": len(covariance.matrix),
            "rank": solved.rank,
            "ridge": solved.ridge,
            "condition": solved.condition,
            "key": covariance.key,
        },
        "rate": found.rate,
        "divergence_of_is_a": found.divergence,
        "change_over_output": float(found.change.norm() / made.rows.values.mean(0).norm()),
        "update_over_weights": size / float(matrix.double().norm()),
    }
