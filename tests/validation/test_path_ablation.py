"""A path ablated beside its controls, worked out by hand on the linear model.

On `^ab` its logits at b are (5, 3, 3) of the tokens `^`, `a`, `b`; see `test_analytic.py`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import run_sets, scaled_by
from sae_graphs.validation import path_ablation
from sae_graphs.validation.controls import Controls, Member, matched, selected
from sae_graphs.validation.evidence import NullKind, PromptResult
from sae_graphs.validation.path_ablation import ablate_path
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import generator_for
from tests.support.effect_graphs import effect_settings
from tests.support.linear_model import LinearModel, identity_sae, linear_model
from tests.support.models import OTHER_PROMPT, PROMPT
from tests.support.subjects import names, subject_of

NODES = names("0.0", "0.1", "1.0", "1.1", "2.0")
KINDS: tuple[NullKind, ...] = ("matched", "scaled", "directions", "shuffles")


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def softmax(*logits: float) -> list[float]:
    whole = sum(map(math.exp, logits))
    return [math.exp(logit) / whole for logit in logits]


def odds(*logits: float) -> float:
    """The log-odds of the first."""
    return logits[0] - math.log(sum(map(math.exp, logits[1:])))


def ablated(model: InstrumentedModel, *path: str, prompt: str = "ab", **options: Any) -> Any:
    how = options.pop("how", None)
    own = options.pop("own", True)
    here = subject_of(model, prompt, how, own=own, **options)
    nodes = NODES if prompt == "ab" else names(*path)
    return ablate_path(here, names(*path), nodes, ValidationSettings(**options), lambda n: None)


CLEAN, SCORE = softmax(5, 3, 3), odds(5, 3, 3)


# -- the path --------------------------------------------------------------------------------------


def test_what_happens_to_the_next_token(model: InstrumentedModel) -> None:
    """0.0 and 1.1 off: (4.5, 0, 5)."""
    found: PromptResult = ablated(model, "0.0", "1.1", controls=1)
    after = softmax(4.5, 0, 5)
    assert (found.prompt, found.role, found.tokens) == ("ab", "discovery", ("^", "a", "b"))
    assert (found.target.token, found.rank_before, found.rank_after) == ("^", 1, 2)
    assert found.target.before == pytest.approx(CLEAN[0])
    assert found.target.after == pytest.approx(after[0])
    assert found.target.points == pytest.approx(100 * (after[0] - CLEAN[0]))
    assert found.target.relative_change == pytest.approx(after[0] / CLEAN[0] - 1)
    assert found.target.logit_change == -0.5
    assert found.target.log_probability_change == pytest.approx(math.log(after[0] / CLEAN[0]))
    assert found.score == pytest.approx(SCORE)
    assert found.change == pytest.approx(odds(4.5, 0, 5) - SCORE)
    kl = sum(p * math.log(p / q) for p, q in zip(CLEAN, after, strict=True))
    assert found.kl == pytest.approx(kl)
    assert [each.token for each in found.raised] == ["b"]
    assert [each.token for each in found.lowered] == ["^", "a"]  # by 0.41 and 0.10
    assert found.top[0].token == "^" and len(found.top) == 3
    assert found.active == 2 and found.contrast is None


def test_with_a_contrast(model: InstrumentedModel) -> None:
    found: PromptResult = ablated(model, "0.0", "1.1", target="b", contrast="^", controls=1)
    assert (found.target.token, found.rank_before, found.rank_after) == ("b", 2, 1)
    assert (found.score, found.change) == (-2.0, 2.5)  # 3 - 5, and 5 - 4.5
    assert found.contrast is not None
    assert (found.contrast.token, found.contrast.logit_change) == ("^", -0.5)


def test_feature_zero(model: InstrumentedModel) -> None:
    """Of 0.1 and 1.1: 0.0 and 1.0, of which the first silences the second: (4.5, 1, 7)."""
    found: PromptResult = ablated(model, "0.1", "1.1", controls=1)
    assert found.feature_zero is not None
    assert (found.feature_zero.n, found.feature_zero.active) == (2, 2)
    assert found.feature_zero.change == pytest.approx(odds(4.5, 1, 7) - SCORE)
    one_layer: PromptResult = ablated(model, "0.1", controls=1)
    assert one_layer.feature_zero is not None and one_layer.feature_zero.n == 1


def test_only_where_the_graph_ablates(model: InstrumentedModel) -> None:
    """At b alone, 0.0 is 2: y is (1, 4, 6) and (0, 1, 5), so z is (3, 1, 9)."""
    found: PromptResult = ablated(model, "0.0", how=effect_settings(ablate="read"), controls=1)
    assert found.change == pytest.approx(odds(3, 1, 9) - SCORE)
    each: PromptResult = ablated(model, "0.0@2", how=effect_settings(ablate="each"), controls=1)
    assert each.change == found.change
    # At a alone: y is (0, 2, 9) and (2, 5, -1), so z is (2 + 4.5, 3, -1 + 2).
    at_a: PromptResult = ablated(model, "0.0@1", how=effect_settings(ablate="each"), controls=1)
    assert at_a.change == pytest.approx(odds(6.5, 3, 1) - SCORE)
    # In another prompt positions mean nothing: everywhere, which gives (4.5, 1, 7).
    how = effect_settings(ablate="each")
    other: PromptResult = ablated(model, "0.0@1", how=how, own=False, controls=1)
    assert other.change == pytest.approx(odds(4.5, 1, 7) - SCORE)


# -- its controls ----------------------------------------------------------------------------------


def test_matched_controls(model: InstrumentedModel) -> None:
    """For 0.0, there are 0.1, (5, 2, -1), and 0.2, (5, 3, 0): norms sqrt(5), sqrt(5) and 3."""
    found: PromptResult = ablated(model, "0.0", controls=2, seed=1)
    null = found.null("matched")
    assert null is not None and null.match is not None
    first, second = (odds(*z) - SCORE for z in ((5, 2, -1), (5, 3, 0)))
    assert {round(change, 9) for change in null.changes} <= {round(first, 9), round(second, 9)}
    assert (null.p, null.p_kl, null.narrowest) == (1 / 3, 1 / 3, 2)
    ratios = {1.0: first, 3 / math.sqrt(5): second}
    (wanted,) = {r for r, change in ratios.items() if change == pytest.approx(null.changes[0])}
    alone: PromptResult = ablated(model, "0.0", controls=1, seed=1)
    one = alone.null("matched")
    assert one is not None and one.match is not None
    (own,) = {r for r, change in ratios.items() if change == pytest.approx(one.changes[0])}
    assert one.match.low == one.match.middle == one.match.high == pytest.approx(own)
    assert null.match.high >= null.match.low and wanted in ratios


def test_scaled_controls(model: InstrumentedModel) -> None:
    """0.1 takes as much as it is; 0.2, 3 at b, becomes 3 - sqrt(5): z2 is 3 - sqrt(5), too."""
    seen = set()
    for seed in range(8):
        found: PromptResult = ablated(model, "0.0", controls=1, seed=seed)
        null = found.null("scaled")
        assert null is not None and null.match is not None
        assert null.match.low == pytest.approx(1.0) == null.match.high
        seen.add(round(null.changes[0], 6))
    expected = (odds(*z) - SCORE for z in ((5, 2, -1), (5, 3, 3 - math.sqrt(5))))
    assert seen == {round(change, 6) for change in expected}


def test_directions_and_shuffles(model: InstrumentedModel) -> None:
    found: PromptResult = ablated(model, "0.0", controls=1)
    directions, shuffles = found.null("directions"), found.null("shuffles")
    assert directions is not None and directions.match is not None and shuffles is not None
    assert directions.match.low == pytest.approx(1.0)
    assert shuffles.changes[0] == pytest.approx(odds(5, 2, -1) - SCORE)  # 0.1 is a node


def test_what_has_no_alternative_is_refused(model: InstrumentedModel) -> None:
    found: PromptResult = ablated(model, "0.0", controls=20)
    assert [(null.kind, null.p) for null in found.nulls if null.refused is None] == [
        ("directions", found.nulls[2].p)
    ]
    assert found.nulls[0].refused == "only 2 different control sets can be drawn"
    assert found.nulls[1].refused == found.nulls[0].refused


def test_an_inactive_path_changes_nothing(model: InstrumentedModel) -> None:
    """0.2 is 0 at a, the last token of this prompt."""
    found: PromptResult = ablated(model, "0.2", prompt="a")
    assert (found.active, found.change, found.kl) == (0, 0.0, 0.0)
    assert found.rank_after == found.rank_before and not found.raised and not found.lowered
    assert [null.kind for null in found.nulls] == list(KINDS)
    assert {null.refused for null in found.nulls} == {"none of its features is active here"}


def test_a_feature_that_writes_nothing_has_no_controls() -> None:
    hooks = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    saes = [identity_sae(hook) for hook in hooks]
    saes[0].W_dec.data[0] = 0.0
    found: PromptResult = ablated(InstrumentedModel(LinearModel(), saes), "0.0", controls=2)
    assert (found.active, found.change) == (1, 0.0)
    assert {null.refused for null in found.nulls} == {"its ablation takes nothing from the stream"}


# -- on a random model -----------------------------------------------------------------------------


def strongest(model: InstrumentedModel, prompt: str = PROMPT) -> list[str]:
    """The feature that is most active at the last token, of each layer."""
    found = [acts.of(torch.arange(40))[-1] for acts in model.clean_run(prompt).activations]
    return [f"{depth}.{int(acts.argmax())}" for depth, acts in enumerate(found)]


def test_numbers_of_controls_and_their_p_values(tiny: InstrumentedModel) -> None:
    found: PromptResult = ablated(
        tiny, *strongest(tiny), prompt=PROMPT, controls=60, other_controls=25
    )
    sizes = {null.kind: len(null.changes) for null in found.nulls if null.refused is None}
    assert sizes == {"matched": 60, "scaled": 25, "directions": 25}
    for null in found.nulls[:3]:
        larger = sum(abs(change) >= abs(found.change) for change in null.changes)
        assert null.p == (1 + larger) / (1 + len(null.changes))
        larger = sum(kl >= found.kl for kl in null.kls)
        assert null.p_kl == (1 + larger) / (1 + len(null.kls))
        assert null.distinct is not None and 19 <= null.distinct <= len(null.changes)
    directions = found.nulls[2].match
    assert directions is not None and directions.low == pytest.approx(1.0) == directions.high


def active_at(model: InstrumentedModel, depth: int, *, read: bool) -> list[str]:
    """A layer's features that are active in the last row, or in others alone."""
    acts = model.clean_run(PROMPT).activations[depth].of(torch.arange(40)) != 0
    found = acts[-1] if read else acts[1:].any(0) & ~acts[-1]
    return [f"{depth}.{feature}" for feature in found.nonzero()[:, 0].tolist()]


def test_one_layer_scaled_has_the_norm_of_the_path(tiny: InstrumentedModel) -> None:
    path = [active_at(tiny, 1, read=True)[0], active_at(tiny, 1, read=False)[0]]
    found: PromptResult = ablated(tiny, *path, prompt=PROMPT, controls=20)
    matched, scaled = found.nulls[:2]
    assert scaled.match is not None and matched.match is not None
    assert scaled.match.low == pytest.approx(1.0, rel=1e-5)
    assert scaled.match.high == pytest.approx(1.0, rel=1e-5)
    assert matched.match.low < 0.99 or matched.match.high > 1.01


def test_scaled_controls_have_the_norm_of_the_path(tiny: InstrumentedModel) -> None:
    """In every layer, whatever is changed below."""
    here = subject_of(tiny, PROMPT)
    members = here.members(names(*strongest(tiny)[1:]))
    path = selected(tiny, here.ablated, [members])
    _, moved = run_sets(tiny, here.clean, path, 1, here.read)
    drawn = matched(
        tiny, here.clean, here.ablated, here.read, members, moved[0], 20, generator_for(0)
    )
    own = moved[0].norm(dim=1)  # [L]
    assert own[0] == 0.0 and (own[1:] > 0).all()
    _, took = run_sets(tiny, here.clean, drawn.sets, 20, here.read)
    assert float((took.norm(dim=2) / own)[:, 1:].sub(1).abs().max()) > 0.05  # unscaled ones differ
    _, again = path_ablation._scaled(here, drawn, moved[0], lambda n: None)
    torch.testing.assert_close(again.norm(dim=2), own.expand(20, -1), rtol=1e-10, atol=0.0)


# -- controls that do nothing ----------------------------------------------------------------------


@pytest.mark.slow
def test_what_acts_in_the_last_layer_has_controls_that_do(tiny: InstrumentedModel) -> None:
    """After the last block the row that is read alone reaches the logits."""
    matched = 0
    for name in active_at(tiny, 3, read=True):
        found: PromptResult = ablated(tiny, name, prompt=PROMPT, controls=5)
        null = found.nulls[0]
        assert found.change != 0.0
        assert null.refused is None and all(null.changes) and all(null.kls)
        matched += 1
    assert matched > 2


def test_controls_that_could_only_do_nothing_are_refused(tiny: InstrumentedModel) -> None:
    for name in active_at(tiny, 3, read=False)[:3]:
        found: PromptResult = ablated(tiny, name, prompt=PROMPT, controls=5)
        assert (found.active, found.change, found.kl) == (1, 0.0, 0.0)
        reasons = [null.refused for null in found.nulls]
        assert reasons[:3] == ["5 of 5 controls change nothing"] * 3  # directions, too
        assert found.nulls[0].p is None and found.nulls[0].changes == ()


@pytest.mark.parametrize(("idle", "refused"), [(2, None), (3, "3 of 4 controls change nothing")])
def test_half_of_the_controls_must_do_something(
    tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch, idle: int, refused: str | None
) -> None:
    """Four controls of the last layer, of which so many are active in other rows alone."""
    own, *there = active_at(tiny, 3, read=True)
    drawn = [*active_at(tiny, 3, read=False)[:idle], *there[: 4 - idle]]

    def these(model: InstrumentedModel, clean: Any, places: Any, *_: Any) -> Controls:
        sets = [[Member(3, int(name.split(".")[1]))] for name in drawn]
        return Controls(selected(model, places, sets), 4, 4, 4)

    monkeypatch.setattr(path_ablation, "matched", these)
    found: PromptResult = ablated(tiny, own, prompt=PROMPT, controls=4)
    null = found.nulls[0]
    assert null.refused == refused
    if refused is None:
        assert [change == 0.0 for change in null.changes] == [True, True, False, False]
        assert null.kls[:2] == (0.0, 0.0) and null.p is not None


def test_seeds(tiny: InstrumentedModel) -> None:
    path = strongest(tiny)

    def changes(**options: Any) -> list[tuple[float, ...]]:
        found: PromptResult = ablated(tiny, *path, prompt=PROMPT, controls=20, **options)
        return [null.changes for null in found.nulls[:3]]

    first, again, other = changes(seed=3), changes(seed=3), changes(seed=4)
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_more_controls_change_nothing_else(tiny: InstrumentedModel) -> None:
    path = strongest(tiny)
    few, many = (ablated(tiny, *path, prompt=PROMPT, controls=n) for n in (19, 40))
    assert few.change == many.change and few.kl == many.kl and few.top == many.top


def test_prompts_are_ablated_at_all_their_own_tokens(tiny: InstrumentedModel) -> None:
    """A test prompt of another length, against a joint ablation by hooks."""
    prompt = OTHER_PROMPT + " cat sat"
    path = strongest(tiny, prompt)
    found: PromptResult = ablated(tiny, *path, prompt=prompt, own=False, controls=1)
    bridge = tiny.model

    def hook_of(layer: Any, index: int) -> Any:
        def hook(stream: Any, hook: Any) -> Any:
            acts = layer.sae.encode(stream)
            acts[:, 0] = 0.0
            acts[..., [i for i in range(40) if i != index]] = 0.0
            return stream - acts @ layer.sae.W_dec

        return layer.point.hook_name, hook

    hooks = [
        hook_of(layer, int(name.split(".")[1]))
        for layer, name in zip(tiny.stack.layers, path, strict=True)
    ]
    ids = torch.tensor([tiny.clean_run(prompt).token_ids])
    logits = bridge.run_with_hooks(ids, fwd_hooks=hooks)[0, -1].double()
    expected = float(logits.softmax(-1)[found.target.token_id])
    assert found.target.after == pytest.approx(expected, rel=1e-6)
    assert abs(found.change) > 1e-4


def test_scaling_keeps_the_precision() -> None:
    """Factors in double precision, activations in half: an SAE decodes nothing but its own."""
    acts = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]], dtype=torch.bfloat16)  # [B, T, U]
    factors = torch.tensor([0.5, -2.0], dtype=torch.float64)
    found = scaled_by(factors)(torch.arange(2), acts)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[[0.5, 1.0]], [[-6.0, -8.0]]]
