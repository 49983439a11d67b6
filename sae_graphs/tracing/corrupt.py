"""What the corrupted runs are fed: the stream before the first block, with the subject's rows
changed.

That stream holds the token embeddings as the model puts them there: positions are added already
where an architecture adds them, and Gemma's scale is in it. Noise is added to it, as ROME adds it
to the token embeddings: the same thing, where they are summed.

Letters: `R` noise runs, `S` tokens of the subject, `T` tokens, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.run import Run
from sae_graphs.model.stream import StreamPoint
from sae_graphs.tracing.settings import TraceSettings

KEPT = 0.1  # of its clean probability is what the answer keeps at most under `auto`
FIRST, LEAST, MOST = 0.25, 2.0**-12, 64.0  # standard deviations: where `auto` looks
STEPS = 8  # of the grid from one size to its double: `auto` is right to a factor of 2 ** (1 / 8)
LINEAR = 1e-3  # of its norm: how far the stream may be from a multiple of the token embeddings

Answered = Callable[[Tensor], float]
"""The answer's mean probability under embeddings `[R, T, D]`."""


class Corrupted(NamedTuple):
    """Embeddings `[R, T, D]`, one a noise run; the noise's standard deviation, absolute."""

    embeddings: Tensor
    noise: float | None = None


class Scale(NamedTuple):
    """The standard deviation of the token embeddings, as they stand in the stream; `note` says
    where that could not be told."""

    std: float
    note: str = ""


def corrupted(
    model: LanguageModel,
    clean: Run,
    subject: Sequence[int],
    settings: TraceSettings,
    *,
    std: float,
    probability: float,
    answered: Answered,
) -> Corrupted:
    """The corrupted embeddings of a prompt, the subject's rows changed as the settings say.

    Noise has one draw a noise run; other corruptions are the same each time, and have one run.
    `std` is that of the token embeddings, `probability` the clean answer's. Strength 0, for a norm
    1, gives the clean embeddings, exactly. Raises `SaeGraphsError` where `auto` finds none.
    """
    rows = clean.inputs[0][list(subject)]  # [S, D]
    match settings.corruption:
        case "noise":
            drawn = draws(settings.seed, settings.noise_runs, len(subject), rows)

            def noised(size: float) -> Tensor:
                return _with_rows(clean, subject, rows + (size * drawn).to(rows.dtype))

            size = _noise(settings.strength, std)
            if size is None:
                size = _smallest(lambda it: answered(noised(it)), KEPT * probability, std)
            return Corrupted(noised(size), size)
        case "norm":
            became = rows * float(settings.strength)
        case "interchange":
            became = _of_other(model, clean, settings)[list(subject)]
        case "nearest":
            became = _nearest(model, clean, subject, settings.rank)
        case "blend":
            other = _nearest(model, clean, subject, settings.rank)
            became = torch.lerp(rows, other, float(settings.strength))
    return Corrupted(_with_rows(clean, subject, became[None]))


def draws(seed: int, n_runs: int, n_tokens: int, like: Tensor) -> Tensor:
    """Standard normal numbers `[R, S, D]` in double precision, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_runs, n_tokens, like.shape[-1])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like.device)


def differing(model: LanguageModel, clean: Run, settings: TraceSettings) -> tuple[int, ...]:
    """The positions at which the tokens of an interchange's two prompts differ.

    Raises `SaeGraphsError` where they have different numbers of tokens, or none differs.
    """
    pairs = zip(clean.token_ids, _other_ids(model, clean, settings), strict=True)
    found = tuple(place for place, (one, two) in enumerate(pairs) if one != two)
    if not found:
        raise SaeGraphsError("the other prompt is the prompt itself; give one that differs")
    return found


# -- sizes -----------------------------------------------------------------------------------------


def embedding_scale(model: LanguageModel, clean: Run) -> Scale:
    """The standard deviation of all numbers in the model's token embeddings, times the scale at
    which they enter the stream.

    The scale is seen where one token takes another's place. Where what enters is no multiple of the
    embeddings (a norm or a projection follows them), it is that of the prompt's own stream.
    """
    matrix = _matrix(model)
    if matrix is not None:
        other = (clean.token_ids[-1] + 1) % len(matrix)
        ids = [*clean.token_ids[:-1], other]
        moved = (_stream(model, ids)[-1] - clean.inputs[0][-1]).double()
        expected = (matrix[other] - matrix[clean.token_ids[-1]]).double()
        if expected.shape == moved.shape and bool(expected.any()):
            scale = float((moved @ expected) / (expected @ expected))
            if float((moved - scale * expected).norm()) <= LINEAR * float(moved.norm()):
                scale = 1.0 if abs(scale - 1) < LINEAR else scale
                return Scale(abs(scale) * float(matrix.float().std()))
    return Scale(
        float(clean.inputs[0].double().std()),
        "the token embeddings do not enter the stream as they are: sizes in standard deviations "
        "are those of this prompt's stream before the first block",
    )


def _noise(strength: str, std: float) -> float | None:
    """The absolute standard deviation that a strength says; None for `auto`."""
    if strength == "auto":
        return None
    return float(strength[:-1]) * std if strength.endswith("s") else float(strength)


def _smallest(probability: Callable[[float], float], most: float, std: float) -> float:
    """A size at which the answer's mean probability is at most `most`, and is not at
    `2 ** (1 / STEPS)` times less.

    From `FIRST` on, sizes are doubled until one does it, or halved while one does; then the grid
    between the last two is bisected. Where the probability falls with the size, as it does but for
    chance, that is the smallest.
    """
    size, kept = FIRST, probability(FIRST * std)
    if kept <= most:
        while size > LEAST and probability(size / 2 * std) <= most:
            size /= 2
    else:
        while kept > most:
            size *= 2
            if size > MOST:
                raise SaeGraphsError(
                    f"under noise of {MOST:g} standard deviations the answer still has {kept:.2g} "
                    "of probability, more than a tenth of its clean one: it does not hang on this "
                    "subject; give another subject, or a strength such as 3s"
                )
            kept = probability(size * std)
    below, above = -STEPS, 0  # steps of the grid, from `size` on
    while above - below > 1:
        middle = (below + above) // 2
        if probability(size * std * 2 ** (middle / STEPS)) <= most:
            above = middle
        else:
            below = middle
    return size * std * 2 ** (above / STEPS)


# -- other embeddings ------------------------------------------------------------------------------


def _with_rows(clean: Run, subject: Sequence[int], rows: Tensor) -> Tensor:
    """The clean embeddings with the subject's rows `[R, S, D]` in place of its own."""
    embeddings = clean.inputs[0].repeat(len(rows), 1, 1)
    embeddings[:, list(subject)] = rows
    return embeddings


def _stream(model: LanguageModel, token_ids: Sequence[int]) -> Tensor:
    """The stream `[T, D]` before the first block."""
    tokens = torch.tensor([list(token_ids)], device=model.model.cfg.device)
    return model.streams_at(tokens, [StreamPoint(0, "pre")])[0][0]


def _other_ids(model: LanguageModel, clean: Run, settings: TraceSettings) -> tuple[int, ...]:
    bos = clean.token_ids[0] == getattr(model.tokenizer, "bos_token_id", None)
    ids = model.tokenize(settings.other or "", prepend_bos=bos)
    if len(ids) != len(clean):
        raise SaeGraphsError(
            f"the other prompt has {len(ids)} tokens, the prompt {len(clean)}; an interchange "
            "takes prompts of as many tokens"
        )
    return ids


def _of_other(model: LanguageModel, clean: Run, settings: TraceSettings) -> Tensor:
    return _stream(model, _other_ids(model, clean, settings))


def _nearest(model: LanguageModel, clean: Run, subject: Sequence[int], rank: int) -> Tensor:
    """The subject's rows `[S, D]` with each token the `rank`-th nearest other one by embedding.

    Euclidean distance; the stream is what the model makes of these tokens at their places, so that
    positions stay and any scale is its own.
    """
    matrix = _matrix(model)
    if matrix is None:
        raise SaeGraphsError(
            f"{model.name} does not show its token embeddings, among which nearest ones could be "
            "found; choose another corruption"
        )
    matrix = matrix.float()
    if rank >= len(matrix):
        raise SaeGraphsError(f"rank is {rank}; there are {len(matrix) - 1} other tokens")
    ids = list(clean.token_ids)
    for place in subject:
        own = ids[place]
        far = (matrix - matrix[own]).square().sum(-1)  # [V]
        far[own] = -1.0  # the first of all
        ids[place] = int(far.argsort(stable=True)[rank])
    return _stream(model, ids)[list(subject)]


def _matrix(model: LanguageModel) -> Tensor | None:
    """The token embeddings `[V, D]`, of tokens that the tokenizer knows; None where not shown."""
    try:
        found: Any = model.model.W_E
    except (AttributeError, TypeError, ValueError, KeyError):
        return None
    if not isinstance(found, Tensor) or found.ndim != 2:
        return None
    known = len(model.tokenizer) if model.tokenizer is not None else len(found)
    return found.detach()[: min(known, len(found))]
