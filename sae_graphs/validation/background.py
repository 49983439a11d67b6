"""Off the distribution: what ablating a path does in random text, and how noise grows.

The method's source found that a path's mean effect over hundreds of snippets is noise, not zero.
Here that noise is measured beside controls, and by how many features are ablated.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import BUNDLED_TEXTS, bundled_folder
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention, mean_of, resample_of
from sae_graphs.model.joint import Sets, run_sets
from sae_graphs.model.next_token import Question, clean_scores, scores
from sae_graphs.significance import rank_correlation, spread
from sae_graphs.validation.controls import Member, active_members, matched, selected
from sae_graphs.validation.evidence import Background, Noise
from sae_graphs.validation.path_ablation import Tick
from sae_graphs.validation.subjects import Subject, generator_for

SNIPPET = 20  # tokens, BOS included
NOISE_SIZES = (1, 2, 4, 8, 16, 32, 64)
RESAMPLED = 8  # snippets that resample ablation takes activations from
KINDS = ("zero", "mean", "resample")

Paths = Sequence[Sequence[Member]]


def bundled_texts() -> Iterable[str]:
    """Documents of the bundled model's language that it was not trained on: 20,000 tokens."""
    texts: list[str] = json.loads((bundled_folder() / BUNDLED_TEXTS).read_text(encoding="ascii"))
    return texts


class Texts:
    """Other text, as tokens in a row, from which pieces of any length are drawn."""

    def __init__(
        self,
        model: InstrumentedModel,
        texts: Iterable[str],
        *,
        n_tokens: int,
        prepend_bos: bool | None = None,
    ) -> None:
        """Reads texts until there are `n_tokens`; raises `SaeGraphsError` where there are none.

        Without `prepend_bos` the SAEs' metadata decides whether pieces begin with BOS.
        """
        if model.tokenizer is None:
            raise SaeGraphsError(
                f"{model.name} has no tokenizer to read other text with; give it one, "
                "model.tokenizer, or validate with quick=True"
            )
        ids: list[int] = []
        for text in texts:
            ids += model.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) >= n_tokens:
                break
        if len(ids) < SNIPPET:
            raise SaeGraphsError(
                f"the other text has {len(ids)} tokens; give one of at least {SNIPPET}, better "
                "thousands"
            )
        bos = model.tokenizer.bos_token_id
        self._ids = ids
        wanted = model.stack.prepend_bos if prepend_bos is None else prepend_bos
        self._head = [bos] if wanted and bos is not None else []
        self._longest = int(model.model.cfg.n_ctx)

    def pieces(self, n: int, length: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """`n` pieces of `length` tokens, or as many as the model reads, BOS included.

        Empty where the texts are too short.
        """
        inner = min(length, self._longest) - len(self._head)
        last = len(self._ids) - inner
        if inner < 1 or last < 0:
            return []
        starts = torch.randint(last + 1, (n,), generator=generator).tolist()
        return [(*self._head, *self._ids[start : start + inner]) for start in starts]


# -- paths in snippets -----------------------------------------------------------------------------


def backgrounds(
    model: InstrumentedModel,
    runs: Sequence[CleanRun],
    members: Paths,
    seed: int,
    ablated_in: Callable[[CleanRun], Tensor],
    tick: Tick,
) -> tuple[list[Background], tuple[Noise, ...]]:
    """Each path ablated in each snippet beside one matched control; and random sets of sizes.

    `ablated_in` says at which positions `[T]` of a snippet.
    """
    kls: list[list[float]] = [[] for _ in members]
    control_kls: list[list[float | None]] = [[] for _ in members]
    active: list[list[bool]] = [[] for _ in members]
    noise: list[list[float]] = [[] for _ in NOISE_SIZES]
    for number, clean in enumerate(runs):
        ablated = ablated_in(clean)
        random = _random(clean, ablated, generator_for(seed, "noise", number))
        sets = [*members, *random]
        found, taken = _divergences(model, clean, ablated, sets)
        for index, path in enumerate(members):
            kls[index].append(found[index])
            active[index].append(bool(active_members(clean, ablated, _anywhere(path))))
        for index, value in enumerate(found[len(members) :]):
            if len(random[index]) == NOISE_SIZES[index]:  # else so many are not active here
                noise[index].append(value)
        theirs = _of_controls(model, clean, ablated, members, taken, (seed, number))
        for index, value_or_none in enumerate(theirs):
            control_kls[index].append(value_or_none)
        tick(2 * len(members) + len(NOISE_SIZES))
    reports = [
        _background(kls[index], control_kls[index], active[index], seed)
        for index in range(len(members))
    ]
    grown = [
        Noise(size, spread(values, seed))
        for size, values in zip(NOISE_SIZES, noise, strict=True)
        if values
    ]
    return reports, tuple(grown)


def _background(
    kls: Sequence[float], controls: Sequence[float | None], active: Sequence[bool], seed: int
) -> Background:
    on = [kl for kl, is_on in zip(kls, active, strict=True) if is_on]
    off = [kl for kl, is_on in zip(kls, active, strict=True) if not is_on]
    paired = list(zip(controls, active, strict=True))
    theirs = [kl for kl, is_on in paired if is_on and kl is not None]
    # where no feature of the path is active, its controls, as it, ablate nothing
    all_theirs = theirs + [0.0] * len(off)
    return Background(
        active=spread(on, seed),
        inactive=spread(off, seed),
        everywhere=spread(kls, seed),
        controls_active=spread(theirs, seed),
        controls_everywhere=spread(all_theirs, seed),
    )


def _divergences(
    model: InstrumentedModel, clean: CleanRun, ablated: Tensor, sets: Paths
) -> tuple[list[float], Tensor]:
    """Of each set ablated in a snippet, and what that took from the stream, `[B, L, T]`."""
    chosen = selected(model, ablated, [_anywhere(members) for members in sets])
    logits, taken = run_sets(model, clean, chosen, len(sets), len(clean) - 1)
    row = clean.logits[-1]
    return scores(Question(row, int(row.argmax())), logits).kl.tolist(), taken


def _of_controls(
    model: InstrumentedModel,
    clean: CleanRun,
    ablated: Tensor,
    members: Paths,
    taken: Tensor,
    seeds: tuple[int, int],
) -> list[float | None]:
    """The divergence of one matched control a path; None where there is none."""
    drawn, read = [], len(clean) - 1
    for number, path in enumerate(map(_anywhere, members)):
        generator = generator_for(*seeds, path)
        drawn.append(matched(model, clean, ablated, read, path, taken[number], 1, generator))
    sets = [[] if found.refused else _members(found.sets) for found in drawn]
    kls, _ = _divergences(model, clean, ablated, sets)
    return [None if found.refused else kl for found, kl in zip(drawn, kls, strict=True)]


def _anywhere(path: Sequence[Member]) -> list[Member]:
    """A path's members without positions, each once."""
    return sorted({member._replace(position=None) for member in path})


def _members(sets: Sets) -> list[Member]:
    """The first copy's set as members."""
    return [
        Member(depth, feature)
        for depth, chosen in sets.items()
        for feature in chosen.features[chosen.chosen[0].any(0)].tolist()
    ]


def _random(clean: CleanRun, ablated: Tensor, generator: torch.Generator) -> list[list[Member]]:
    """Random sets of active features of all layers, one of each size, as far as there are any."""
    everyone = [
        Member(depth, feature)
        for depth, activations in enumerate(clean.activations)
        for feature in activations.active(ablated).tolist()
    ]
    order = torch.randperm(len(everyone), generator=generator).tolist()
    return [[everyone[number] for number in order[:size]] for size in NOISE_SIZES]


# -- kinds of ablation -----------------------------------------------------------------------------


def changes_by_kind(
    here: Subject, members: Paths, runs: Sequence[CleanRun], others: Sequence[CleanRun], tick: Tick
) -> list[dict[str, float]]:
    """The change of the metric, in nats, under zero, mean and resample ablation, of each path.

    Means are over the snippets `runs`; resampled activations come from `others`, of the prompt's
    own length, and the changes are means over them.
    """
    model, clean = here.model, here.clean
    chosen = selected(model, here.ablated, members)
    before = clean_scores(here.question).metric

    def changes(kind: Intervention) -> Tensor:
        logits, _ = run_sets(
            model, clean, chosen, len(members), here.read, intervention=kind, progress=tick
        )
        return scores(here.question, logits).metric - before

    found = {"zero": changes(ZERO)}
    if runs:
        found["mean"] = changes(mean_of(model, runs, "mean of snippets"))
    if others:
        resampled = [changes(resample_of(model, other, "resample")) for other in others]
        found["resample"] = torch.stack(resampled).mean(0)
    return [
        {kind: float(values[index]) for kind, values in found.items()}
        for index in range(len(members))
    ]


def agreement(kinds: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Rank correlations over paths between kinds of ablation, of |change|."""
    names = [kind for kind in KINDS if kinds and kind in kinds[0]]
    return {
        f"{left}, {right}": rank_correlation(
            [abs(kind[left]) for kind in kinds], [abs(kind[right]) for kind in kinds]
        )
        for left, right in itertools.combinations(names, 2)
    }
