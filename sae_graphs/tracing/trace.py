"""`trace`: a prompt with its subject corrupted, and every state restored in turn.

1. Clean run. 2. Where the subject stands, what is asked. 3. Corrupt. 4. Restore, cell by cell.
5. Assemble.

Method: Meng et al., "Locating and Editing Factual Associations in GPT" (2022).
"""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae_graphs._version import __version__
from sae_graphs.bars import Progress, heard, with_bar
from sae_graphs.checkpoint import run_key
from sae_graphs.errors import SaeGraphsError
from sae_graphs.keywords import with_settings
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.next_token import NEXT_TOKENS, next_tokens, token_id
from sae_graphs.model.run import Run
from sae_graphs.schema import plain
from sae_graphs.tracing.climb import Ground
from sae_graphs.tracing.corrupt import corrupted, differing, embedding_scale
from sae_graphs.tracing.partial import TracePartial
from sae_graphs.tracing.records import Score, Sweep, Trace
from sae_graphs.tracing.scores import Asked
from sae_graphs.tracing.settings import Corruption, SweepName, TraceSettings
from sae_graphs.tracing.subject import Subject, find_subject
from sae_graphs.tracing.sweeps import answers, measure


@with_bar("restoring states")
@with_settings(TraceSettings, loader="load_model")
@torch.no_grad()
def trace(
    model: LanguageModel,
    prompt: str | Sequence[int],
    *,
    subject: str | Sequence[int] | None = None,
    target: str | Sequence[str] | None = None,
    read: int | None = None,
    sweeps: SweepName | Sequence[SweepName] = ("state", "mlp", "attention"),
    corruption: Corruption = "noise",
    strength: str | float = "auto",
    noise_runs: int = 10,
    seed: int = 0,
    window: int | None = None,
    other: str | None = None,
    rank: int = 1,
    prepend_bos: bool | None = None,
    settings: TraceSettings | None = None,
    resume: TracePartial | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> Trace:
    """The causal trace of one prompt: what restoring each state does to the corrupted answer.

    The `subject`, a text in the prompt or the positions of its tokens, is corrupted; then at every
    token and layer what the clean run had there is put back, alone, and the answer heard again.
    `target` is the token asked about, or several as a group; by default the likeliest next one.
    `read` is the position whose next token is the answer, by default the last. An interchange may
    leave the subject out: it is then every token in which the `other` prompt differs.

    The options from `sweeps` to `rank` are those of `TraceSettings`, which says what each does; or
    give `settings` whole. A model is a `LanguageModel`, or what `load_model` takes for one.
    `progress` is told the blocks that copies have passed and are to pass, or True for a bar. With a
    folder to `resume` from, noise runs that an earlier, interrupted trace of the same kind measured
    are read, and those that this one measures are kept there; it stays until you delete it.

    Every number is what a full forward pass with hooks would give. Raises `SaeGraphsError` where
    the subject is not in the prompt, or what is asked does not fit it.
    """
    begun = time.perf_counter()
    settings = settings or TraceSettings()
    _check_model(model)
    clean = model.run(prompt, prepend_bos=prepend_bos)
    given = _Given(clean, subject, target, read, settings)
    return _traced(model, given, begun=begun, resume=resume, progress=progress)


@torch.no_grad()
def trace_ends(model: LanguageModel, clean: Run, *, subject: str, settings: TraceSettings) -> Trace:
    """A trace of the subject's last token and of the read one alone; cells of others are NaN.

    All that averages over many prompts need, in a fraction of the time where they are far apart.
    """
    return _traced(model, _Given(clean, subject, None, None, settings), ends=True)


class _Given(NamedTuple):
    """A clean run, and what was asked of it."""

    clean: Run
    subject: str | Sequence[int] | None
    target: str | Sequence[str] | None
    read: int | None
    settings: TraceSettings


def _traced(
    model: LanguageModel,
    given: _Given,
    *,
    ends: bool = False,
    begun: float | None = None,
    resume: TracePartial | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> Trace:
    begun = time.perf_counter() if begun is None else begun
    clean, subject, target, read, settings = given
    at = _read(read, len(clean))
    found = _subject(model, clean, subject, at, settings)
    asked = Asked(clean.logits[at], _targets(model, clean.logits[at], target))
    score = asked.clean
    scale = embedding_scale(model, clean)

    ground = Ground(model, clean, at, found.positions[0])
    fed = corrupted(
        model,
        clean,
        found.positions,
        settings,
        std=scale.std,
        probability=score.probability,
        answered=lambda those: float(asked.scores(answers(ground, those))[1].mean()),
    )
    partial = TracePartial(resume) if isinstance(resume, str | Path) else resume
    if partial is not None:
        facts = _facts(model, clean, found.positions, at, asked, settings, fed.noise)
        key = functools.partial(run_key, facts, model.model.named_parameters())
        partial.begin(key, range(len(fed.embeddings)))
    measured = measure(
        ground,
        asked,
        settings,
        fed.embeddings,
        progress=heard(progress),
        partial=partial,
        tokens=(found.positions[-1], at) if ends else None,
    )
    scores = tuple(Score(*values) for values in measured.corrupted.T.tolist())
    size = settings.window_of(ground.n_blocks)
    return Trace(
        settings=settings,
        model=model.name,
        prompt=clean.prompt,
        tokens=clean.tokens,
        subject=found.positions,
        read=at,
        targets=tuple(model.token_string(token) for token in asked.targets),
        target_ids=asked.targets,
        n_layers=ground.n_blocks,
        noise=fed.noise,
        embedding_std=scale.std,
        clean=score,
        corrupted=scores,
        sweeps=tuple(
            Sweep(name, size if name in ("mlp", "attention") else 1, *values)
            for name, values in zip(settings.sweeps, measured.cells, strict=True)
        ),
        next_tokens=next_tokens(model, clean, at),
        corrupted_next_tokens=_likeliest(model, measured.logits),
        warnings=tuple(
            filter(None, (found.note, scale.note, *_remarks(model, asked, score, scores)))
        ),
        about=_about(model, clean, time.perf_counter() - begun),
    )


# -- what is asked ---------------------------------------------------------------------------------


def _check_model(model: Any) -> None:
    if not isinstance(model, LanguageModel):
        raise SaeGraphsError(
            f"{model!r:.60} is no language model; give one that sae_graphs.load_model made, or "
            "LanguageModel(model)"
        )


def _read(read: int | None, n_tokens: int) -> int:
    """The position whose next token is the answer."""
    if n_tokens < 2:
        raise SaeGraphsError(
            "the prompt is one token, in which nothing is handed on; give a longer one"
        )
    try:
        place = n_tokens - 1 if read is None else operator.index(read)
    except TypeError:
        raise SaeGraphsError(f"read is {read!r:.40}; expected the position of a token") from None
    if not -n_tokens <= place < n_tokens:
        raise SaeGraphsError(f"read is {read}; the prompt has tokens 0 to {n_tokens - 1}")
    return place % n_tokens


def _subject(
    model: LanguageModel,
    clean: Run,
    subject: str | Sequence[int] | None,
    read: int,
    settings: TraceSettings,
) -> Subject:
    """The subject's tokens; of an interchange, where none is given, all in which it differs."""
    if settings.corruption != "interchange":
        if subject is None:
            raise SaeGraphsError("there is no subject; give some text of the prompt to corrupt")
        return find_subject(model, clean.token_ids, subject, read)
    places = differing(model, clean, settings)
    if subject is None:
        return find_subject(model, clean.token_ids, places, read)
    found = find_subject(model, clean.token_ids, subject, read)
    others = [place for place in places if place not in found.positions]
    if others:
        more = f"the other prompt differs outside the subject, too, at {_tokens(others)}"
        note = "; ".join(filter(None, (found.note, f"{more}, which were left as they are")))
        return found._replace(note=note)
    return found


def _tokens(places: Sequence[int]) -> str:
    return f"token{'s' if len(places) > 1 else ''} {', '.join(map(str, places))}"


def _targets(
    model: LanguageModel, logits: Tensor, target: str | Sequence[str] | None
) -> tuple[int, ...]:
    """The tokens asked about; the likeliest, where none is named."""
    if target is None:
        return (int(logits.argmax()),)
    names = [target] if isinstance(target, str) else list(target)
    found = tuple(token_id(model, name) for name in names)
    if not found or len(set(found)) < len(found):
        raise SaeGraphsError(f"target is {target!r:.60}; expected a token, or several that differ")
    return found


# -- what is said of it ----------------------------------------------------------------------------


def _likeliest(model: LanguageModel, logits: Tensor) -> tuple[tuple[str, float], ...]:
    """The likeliest next tokens of the corrupted runs `[R, V]`, by their mean probability."""
    mean = logits.double().softmax(-1).mean(0)
    top = mean.topk(min(NEXT_TOKENS, len(mean)))
    return tuple(
        (model.token_string(token), probability)
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )


def _remarks(model: LanguageModel, asked: Asked, clean: Any, scores: Sequence[Any]) -> list[str]:
    """What a reader should know before believing the trace."""
    found = []
    best = int(asked.logits.argmax())
    if best not in asked.targets:
        found.append(
            f"the target is not the likeliest next token, which is {model.token_string(best)!r}"
        )
    if all(score == clean for score in scores):
        found.append("the corruption changes nothing: all cells are the clean run")
    elif np.mean([score.log_odds for score in scores]) >= clean.log_odds:
        found.append("the corruption does not harm the answer: there is nothing to restore")
    return found


def _about(model: LanguageModel, clean: Run, seconds: float) -> dict[str, Any]:
    return {
        "sae_graphs": __version__,
        "seconds": round(seconds, 3),
        "dtype": str(clean.logits.dtype).removeprefix("torch."),
        "device": clean.logits.device.type,
        "threads": torch.get_num_threads(),
        "token_ids": list(clean.token_ids),
    }


def _facts(
    model: LanguageModel,
    clean: Run,
    subject: Sequence[int],
    read: int,
    asked: Asked,
    settings: TraceSettings,
    noise: float | None,
) -> dict[str, Any]:
    """What determines the numbers of a trace, beside the model's weights."""
    return {
        "sae_graphs": __version__,
        "model": model.name,
        "device": clean.logits.device.type,
        "dtype": str(clean.logits.dtype),
        "tokens": list(clean.token_ids),
        "subject": list(subject),
        "read": read,
        "targets": list(asked.targets),
        "settings": plain(settings),
        "noise": noise,
    }
