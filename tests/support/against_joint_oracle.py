"""Joint edits by the engine and by the oracle side by side, and how far they are apart.

Letters: `B` copies, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.model import joint
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.interventions import ZERO, Intervention, mean_over, resample, scale
from sae_graphs.model.joint import Selected
from tests.support.against_oracle import RELATIVE, Case, Record, largest_deviation
from tests.support.joint_oracle import Edit, JointOracle, Passed
from tests.support.models import OTHER_PROMPT, PROMPT, tokenizer
from tests.support.oracle import Oracle

N_COPIES = 4  # the first one is left as it is, but where all features must go

Masks = dict[int, Tensor]  # by depth: [B, T, F] bool


class Both(NamedTuple):
    """The same edits of several copies for the engine and for the oracle."""

    engine: dict[int, joint.Edit]
    oracle: dict[int, Edit]
    slow: JointOracle


class Found(NamedTuple):
    """What the engine and the oracle say, changes being ablated minus clean."""

    ran: joint.Ran
    logits: Tensor  # [B, V]
    passed: Passed
    worst: float


def random_masks(clean: CleanRun, seed: int, positions: str = "all") -> Masks:
    """Two fifths of the features, active or not, in all layers of the last copy, none of the first.

    In two layers of three of the others.
    """
    generator = torch.Generator().manual_seed(seed)
    n, places = len(clean), torch.zeros(len(clean), dtype=torch.bool)
    places[-1 if positions == "read" else slice(1 if n > 1 else 0, n)] = True
    masks: Masks = {}
    for depth, activations in enumerate(clean.activations):
        width = activations.shape[1]
        some = torch.rand(N_COPIES, 1, width, generator=generator) < 0.4
        used = torch.rand(N_COPIES, 1, 1, generator=generator) < 0.67
        used[-1] = True
        some &= used
        if positions == "each":  # every feature at one position of its own
            at = torch.randint(1, n, (N_COPIES, 1, width), generator=generator)
            some = some & (torch.arange(n)[None, :, None] == at)
        some = some & places[None, :, None]
        some[0] = False
        masks[depth] = some
    return masks


def selected(mask: Tensor) -> Selected:
    """The features that any copy chooses, in no special order."""
    features = mask.any(0).any(0).nonzero()[:, 0].flip(0)
    return Selected(features, mask[:, :, features])


def interventions_of(case: Case, clean: CleanRun, way: str) -> tuple[Intervention, Any]:
    """An intervention, and what it makes of a layer's activations `[T, F]`: `become(layer)`."""
    if way == "scale":
        return scale(-1.5), lambda layer: lambda acts: -1.5 * acts
    if way in ("mean", "resample"):
        ids = [0, *tokenizer()(OTHER_PROMPT, add_special_tokens=False)["input_ids"]]
        found = Oracle(case.oracle.model, case.oracle.saes, ids).activations
        if way == "resample":
            other = resample(case.model, OTHER_PROMPT, n_tokens=len(clean))
            return other, lambda layer: lambda acts: found[layer]
        means = [acts[1:].mean(0) for acts in found]
        return (
            mean_over(case.model, [OTHER_PROMPT]),
            lambda layer: lambda acts: means[layer].expand_as(acts),
        )
    return ZERO, lambda layer: torch.zeros_like


def both(case: Case, clean: CleanRun, masks: Masks, way: str) -> Both:
    """Edits of one way; a path is patched from the first layer, with all others held."""
    model, slow = case.model, JointOracle(case.oracle, N_COPIES)
    sets = {depth: selected(mask) for depth, mask in masks.items()}
    ablated = torch.arange(len(clean)) >= min(1, len(clean) - 1)
    if way == "adding":
        generator = torch.Generator().manual_seed(9)
        deltas = {}
        for depth, mask in masks.items():
            noise = torch.randn(N_COPIES, *clean.streams[0].shape, generator=generator)
            deltas[depth] = noise.to(clean.streams[0]) * mask.any(-1, keepdim=True)
        return Both(
            {depth: joint.adding(delta) for depth, delta in deltas.items()},
            {d: slow.added(delta) for d, delta in deltas.items()},
            slow,
        )
    if way in ("keeping", "bare"):
        errors = way == "keeping"
        return Both(
            {
                depth: joint.keeping_only(model, clean, depth, some, ablated, errors=errors)
                for depth, some in sets.items()
            },
            {depth: slow.only_kept(depth, mask, ablated, errors) for depth, mask in masks.items()},
            slow,
        )
    intervention, become = interventions_of(case, clean, way)
    engine = {
        depth: joint.changing(
            model, clean, depth, some, joint.becoming(intervention, clean.points[depth])
        )
        for depth, some in sets.items()
    }
    edits = {depth: slow.changed(depth, mask, become(depth)) for depth, mask in masks.items()}
    if way not in ("holding", "silencing"):
        return Both(engine, edits, slow)
    silenced = {depth: sets[depth].features % 3 == 0 for depth in sets if way == "silencing"}
    for depth in range(1, len(masks)):
        engine[depth] = joint.holding_others(model, clean, depth, sets[depth], silenced.get(depth))
        dense = torch.arange(masks[depth].shape[-1]) % 3 == 0 if silenced else None
        edits[depth] = slow.others_held(depth, masks[depth], dense)
    return Both(engine, edits, slow)


def found_by(case: Case, clean: CleanRun, edits: Both, *, read: int = -1) -> Found:
    """Both run, and compared: at the end, at an SAE layer on the way, and what was moved."""
    read = read % len(clean)
    slow, through = edits.slow, len(clean.points) // 2
    passed = slow.run(edits.oracle)
    ran = joint.run_edits(case.model, clean, edits.engine, N_COPIES, read)
    logits = joint.logits_of(case.model, clean, ran, read)
    halfway = joint.run_edits(
        case.model, clean, edits.engine, N_COPIES, read, clean.points[through]
    ).streams
    before = {depth: edit for depth, edit in edits.oracle.items() if depth < through}
    layer_end = slow.run(before, case.oracle.hooks[through]).end
    assert layer_end is not None
    moved = ran.moved.new_zeros(ran.moved.shape)
    for depth, norms in passed.moved.items():
        moved[:, depth] = norms
    pairs = [
        (
            logits - clean.logits[read],
            passed.logits[:, read] - slow.clean.logits[:, read],
        ),
        (
            halfway - clean.streams[through][read],
            layer_end[:, read] - slow.clean.streams[through][:, read],
        ),
        (ran.moved[..., : read + 1].flatten(1), moved[..., : read + 1].flatten(1)),
    ]
    worst = max(deviation(ours, other) for ours, other in pairs)
    return Found(ran, logits, passed, worst)


def deviation(ours: Tensor, other: Tensor) -> float:
    """Every change by itself in float64; in float32 by the largest, but no finer than for 1."""
    if not other.any():
        assert float(ours.abs().max()) < 1e-12
        return 0.0
    if other.dtype == torch.float64:
        return largest_deviation([ours], [other])
    return float((ours - other).abs().max() / other.abs().max().clamp(min=1.0))


def assert_as_oracle(
    case: Case, record: Record, way: str, *, seed: int, prompt: str = PROMPT, **options: Any
) -> Found:
    clean = case.model.clean_run(prompt)
    masks = random_masks(clean, seed, options.pop("positions", "all"))
    found = found_by(case, clean, both(case, clean, masks, way), **options)
    dtype = str(clean.logits.dtype).removeprefix("torch.")
    record(f"deviation {dtype} joint", found.worst)
    assert found.worst < RELATIVE
    if way not in ("keeping", "bare"):
        assert not found.ran.changed[0] and bool(found.ran.moved[1:].any())
        assert torch.equal(found.logits[0], clean.logits[options.get("read", -1)])
        assert not found.ran.moved[0].any()
    return found
