"""Other text: pieces of it, paths ablated in them beside controls, and kinds of ablation."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import run_sets
from sae_graphs.model.next_token import Question, scores
from sae_graphs.validation.background import (
    NOISE_SIZES,
    SNIPPET,
    Texts,
    agreement,
    backgrounds,
    bundled_texts,
    changes_by_kind,
)
from sae_graphs.validation.controls import Member, active_members, selected
from sae_graphs.validation.evidence import Background, Noise
from sae_graphs.validation.subjects import ablated_elsewhere, generator_for
from tests.support.effect_graphs import effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import CONTEXT, CORPUS
from tests.support.stacks import one_line
from tests.support.subjects import names, subject_of
from training.demo.corpus.stream import documents

N_SNIPPETS = 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kl_of(model: InstrumentedModel, clean: CleanRun, ablated: Tensor, path: list[Member]) -> float:
    chosen = selected(model, ablated, [path])
    logits, _ = run_sets(model, clean, chosen, 1, len(clean) - 1)
    return float(scores(Question(clean.logits[-1], 0), logits).kl[0])


# -- texts -----------------------------------------------------------------------------------------


def test_pieces(tiny: InstrumentedModel) -> None:
    ids = tiny.tokenizer(CORPUS, add_special_tokens=False)["input_ids"]
    texts = Texts(tiny, itertools.repeat(CORPUS), n_tokens=len(ids))  # without end: it stops
    pieces = texts.pieces(50, 8, seeded())
    inside = {tuple(ids[start : start + 7]) for start in range(len(ids) - 6)}
    assert {piece[0] for piece in pieces} == {0} and {piece[1:] for piece in pieces} <= inside
    assert len(set(pieces)) > 10
    assert texts.pieces(50, 8, seeded()) == pieces != texts.pieces(50, 8, seeded(1))
    assert len(texts.pieces(1, 1 + len(ids), seeded())[0]) == 1 + len(ids)
    assert texts.pieces(3, 2 + len(ids), seeded()) == []  # longer than all the text
    assert texts.pieces(3, 1, seeded()) == []  # nothing but BOS
    longer = Texts(tiny, itertools.repeat(CORPUS), n_tokens=10 * CONTEXT)
    assert {len(piece) for piece in longer.pieces(3, 2 * CONTEXT, seeded())} == {CONTEXT}
    bare = Texts(tiny, [CORPUS], n_tokens=20, prepend_bos=False)
    assert all(piece[0] != 0 for piece in bare.pieces(5, 8, seeded()))


@pytest.mark.parametrize("given", [[], [""], ["the cat"]])
def test_too_little_text(tiny: InstrumentedModel, given: list[str]) -> None:
    with pytest.raises(SaeGraphsError, match=f"give one of at least {SNIPPET}") as caught:
        Texts(tiny, given, n_tokens=100)
    one_line(caught)


def test_the_bundled_texts_are_documents_that_training_never_saw() -> None:
    texts = list(bundled_texts())
    assert texts == list(itertools.islice(documents(0, "validation"), len(texts)))
    assert len(texts) > 500


# -- paths in snippets -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny: InstrumentedModel) -> list[CleanRun]:
    texts = Texts(tiny, itertools.repeat(CORPUS), n_tokens=400)
    return [tiny.run_tokens(ids) for ids in texts.pieces(N_SNIPPETS, SNIPPET, seeded())]


def found_in(
    model: InstrumentedModel,
    runs: list[CleanRun],
    paths: list[list[Member]],
    how: GraphSettings | None = None,
    seed: int = 0,
) -> tuple[list[Background], tuple[Noise, ...]]:
    where = partial(ablated_elsewhere, how=how or effect_settings())
    return backgrounds(model, runs, paths, seed, where, lambda n: None)


def sometimes_active(runs: list[CleanRun], ablated: Tensor, at: slice = slice(1, None)) -> Member:
    """A feature of layer 1 that is active in some snippets and not in others."""
    on = torch.stack([(r.activations[1].of(torch.arange(40))[at] != 0).any(0) for r in runs])
    counts = on.sum(0)
    return Member(1, int(((counts > 0) & (counts < len(runs))).nonzero()[0, 0]))


def test_snippets_are_split_by_activity(tiny: InstrumentedModel, runs: list[CleanRun]) -> None:
    ablated = ablated_elsewhere(runs[0], effect_settings())
    path = [sometimes_active(runs, ablated)]
    ((found,), _) = found_in(tiny, runs, [path])
    on = [bool(active_members(run, ablated, path)) for run in runs]
    kls = [kl_of(tiny, run, ablated, path) for run in runs]
    active = [kl for kl, is_on in zip(kls, on, strict=True) if is_on]
    assert 0 < len(active) < len(runs)
    assert (found.active.n, found.inactive.n) == (len(active), len(runs) - len(active))
    assert found.active.mean == pytest.approx(sum(active) / len(active))
    assert found.inactive.mean == 0.0  # what is silent changes nothing, exactly
    assert found.everywhere.n == len(runs)
    assert found.everywhere.mean == pytest.approx(sum(kls) / len(runs))
    assert found.controls_active.n == len(active)
    assert found.controls_everywhere.n == len(runs)
    assert found.controls_active.mean and found.controls_active.mean > 0
    assert found.controls_everywhere.mean == pytest.approx(
        found.controls_active.mean * len(active) / len(runs)
    )


def test_positions_mean_nothing_in_other_text(
    tiny: InstrumentedModel, runs: list[CleanRun]
) -> None:
    """A feature at position 25 of its prompt, of which a snippet has 20."""
    plain = sometimes_active(runs, ablated_elsewhere(runs[0], effect_settings()))
    each = effect_settings(ablate="each")
    placed = [[plain._replace(position=25), plain._replace(position=3)]]
    assert found_in(tiny, runs, placed, each) == found_in(tiny, runs, [[plain]])


def test_other_text_is_ablated_where_the_graph_is(
    tiny: InstrumentedModel, runs: list[CleanRun]
) -> None:
    read = effect_settings(ablate="read")
    ablated = ablated_elsewhere(runs[0], read)
    assert ablated.nonzero()[:, 0].tolist() == [SNIPPET - 1]
    path = [sometimes_active(runs, ablated, slice(-1, None))]
    ((found,), _) = found_in(tiny, runs, [path], read)
    kls = [kl_of(tiny, run, ablated, path) for run in runs]
    assert found.everywhere.mean == pytest.approx(sum(kls) / len(runs))
    assert 0 < found.active.n < len(runs) and found.inactive.mean == 0.0
    first = ablated_elsewhere(runs[0], effect_settings(ablate_first=True))
    assert first.all() and not ablated_elsewhere(runs[0], effect_settings())[0]
    earlier = ablated_elsewhere(runs[0], effect_settings(ablate="read", read=-3))
    assert torch.equal(earlier, ablated)  # snippets are read at their end


def test_noise_grows_with_what_is_ablated(tiny: InstrumentedModel, runs: list[CleanRun]) -> None:
    _, noise = found_in(tiny, runs, [[Member(0, 1)]])
    assert [each.n_features for each in noise] == list(NOISE_SIZES)
    means = [each.kl.mean for each in noise]
    assert means[0] is not None and means[-1] is not None and means[-1] > means[0] > 0
    assert all(each.kl.n == len(runs) for each in noise)


def test_noise_of_more_features_than_there_are() -> None:
    """The linear model has 9 features in all: sets of 16 and more cannot be drawn."""
    model = linear_model()
    runs = [model.clean_run(text) for text in ("ab", "ba")]
    _, noise = found_in(model, runs, [[Member(0, 0)]])
    assert [each.n_features for each in noise] == [1, 2, 4, 8][: len(noise)]
    assert 2 <= len(noise) <= 4


def test_seeds(tiny: InstrumentedModel, runs: list[CleanRun]) -> None:
    path = [[sometimes_active(runs, ablated_elsewhere(runs[0], effect_settings()))]]
    assert found_in(tiny, runs, path, seed=1) == found_in(tiny, runs, path, seed=1)
    one, other = (found_in(tiny, runs, path, seed=seed) for seed in (1, 2))
    # Only what is drawn differs; how many rows run together does not matter but for rounding.
    assert one[0][0].active.mean == pytest.approx(other[0][0].active.mean, rel=1e-9)
    assert one[0][0].controls_active.mean != other[0][0].controls_active.mean
    assert one[1] != other[1]


def test_one_path_does_not_change_what_another_finds(
    tiny: InstrumentedModel, runs: list[CleanRun]
) -> None:
    path = [sometimes_active(runs, ablated_elsewhere(runs[0], effect_settings()))]
    alone, _ = found_in(tiny, runs, [path])
    both, _ = found_in(tiny, runs, [path, [Member(2, 3), Member(3, 5)]])
    assert both[0].active.mean == pytest.approx(alone[0].active.mean)
    assert both[0].controls_active.mean == pytest.approx(alone[0].controls_active.mean)


def test_generators_have_names() -> None:
    def drawn(*names: object) -> list[float]:
        found: list[float] = torch.rand(3, generator=generator_for(*names)).tolist()  # type: ignore[arg-type]
        return found

    assert drawn(0, "a", 1) == drawn(0, "a", 1)
    assert len({tuple(drawn(*each)) for each in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1))}) == 4


# -- kinds of ablation -----------------------------------------------------------------------------


def test_kinds_of_ablation_by_hand() -> None:
    """1.1 of `ab` is 4 and 5; z is (5, y1 - 2, y1 of a - 1), the metric the logit of b less `^`.

    In `bb`, y1 is 5 at both, so its mean is 5 and it is resampled as 5 and 5.
    """
    model = linear_model()
    here = subject_of(model, "ab", target="b", contrast="^")
    other = model.clean_run("bb")
    assert other.activations[1].of(torch.tensor([1]))[:, 0].tolist()[1:] == [5.0, 5.0]
    paths = [list(here.members(names(path))) for path in ("1.1", "0.2@1")]
    first, silent = changes_by_kind(here, paths, [other], [other], lambda n: None)
    assert first == pytest.approx({"zero": -4.0, "mean": 1.0, "resample": 1.0})
    # 0.2 is silent at a, and 3 at both in `bb`: x2 does nothing to the next block but stay, and
    # y2 at a becomes 9, of which z0 gets half more.
    assert silent == pytest.approx({"zero": 0.0, "mean": -1.5, "resample": -1.5})


def test_resampling_is_a_mean_over_snippets() -> None:
    model = linear_model()
    here = subject_of(model, "ab", target="b", contrast="^")
    paths = [list(here.members(names("1.1")))]
    others = [model.clean_run("bb"), model.clean_run("ab")]  # to 5, and to itself
    (found,) = changes_by_kind(here, paths, [], others, lambda n: None)
    assert found == pytest.approx({"zero": -4.0, "resample": 0.5})
    (alone,) = changes_by_kind(here, paths, [], [], lambda n: None)
    assert list(alone) == ["zero"]


def test_agreement_between_kinds() -> None:
    """By rank, of sizes: signs do not matter."""
    kinds = [
        {"zero": -3.0, "mean": 1.0, "resample": 0.1},
        {"zero": 2.0, "mean": -0.5, "resample": 0.2},
        {"zero": 1.0, "mean": 0.2, "resample": -0.3},
    ]
    found = agreement(kinds)
    assert found == pytest.approx({"zero, mean": 1, "zero, resample": -1, "mean, resample": -1})
    assert agreement(kinds[:2]) == dict.fromkeys(found)
    assert agreement([{"zero": 1.0}] * 3) == {} and agreement([]) == {}


def test_counts_of_copies(tiny: InstrumentedModel, runs: list[CleanRun]) -> None:
    ticks: list[int] = []
    where = partial(ablated_elsewhere, how=effect_settings())
    backgrounds(tiny, runs, [[Member(0, 1)], [Member(1, 2)]], 0, where, ticks.append)
    assert sum(ticks) == len(runs) * (2 * 2 + len(NOISE_SIZES))
