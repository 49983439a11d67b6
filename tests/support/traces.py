"""Traces made by hand: with a planted site and handover, with nothing but noise, with wild text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import LayerReport, Node, OutputToken
from sae_graphs.tracing.records import Score, Sweep, Trace
from sae_graphs.tracing.settings import SweepName, TraceSettings
from tests.support.answer_graphs import answer_run

TOKENS = ("The", " E", "iff", "el", " Tower", " is", " in")
HOSTILE = (
    *("<script>alert(1)</script>", " $x_1$", "\u202e\n", "[bold red]"),
    *(" \uffff\ud83d", " &amp;", "*`|"),
)
CLEAN, CORRUPTED = 2.0, -4.0  # log-odds
PLANTED: dict[SweepName, float] = {
    "state": 1.0,
    "mlp": 0.4,
    "attention": 0.3,
    "state-mlp-severed": 0.6,
    "state-attention-severed": 0.8,
}  # shares of the loss that each sweep's site restores


def score(log_odds: float) -> Score:
    return Score(log_odds, probability(log_odds), abs(log_odds - CLEAN) / 2)


def probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def trace_of(
    shares: dict[SweepName, np.ndarray],
    *,
    tokens: Sequence[str] = TOKENS,
    subject: Sequence[int] = (1, 2, 3, 4),
    runs: int = 10,
    seed: int = 0,
    noise: float = 0.3,
    spread: float = 0.5,
    clean: float = CLEAN,
    strength: float = 0.3,
) -> Trace:
    """A trace whose cells restore these shares `[T, L]` of the loss.

    `noise` is a cell's own, `spread` that of the corrupted run, which all cells of a run share;
    both are standard deviations, in nats.
    """
    rng = np.random.default_rng(seed)
    corrupted = CORRUPTED + spread * rng.standard_normal(runs)
    sweeps = []
    for name, share in shares.items():
        drawn = noise * rng.standard_normal((runs, *share.shape))
        drawn[:, : subject[0]] = 0.0  # what stands before the subject is clean anyway
        log_odds = corrupted[:, None, None] + (clean - CORRUPTED) * share + drawn
        kl = np.abs(log_odds - clean) / 2
        sweeps.append(Sweep(name, 1 if "state" in name else 2, log_odds, _p(log_odds), kl))
    return Trace(
        settings=TraceSettings(sweeps=tuple(shares), noise_runs=runs, seed=seed),
        model="made by hand",
        prompt="".join(tokens),
        tokens=tuple(tokens),
        subject=tuple(subject),
        read=len(tokens) - 1,
        targets=(" Paris",),
        target_ids=(7,),
        n_layers=next(iter(shares.values())).shape[1],
        noise=strength,
        embedding_std=0.1,
        clean=score(clean),
        corrupted=tuple(map(score, corrupted)),
        sweeps=tuple(sweeps),
        next_tokens=((" Paris", probability(clean)), (" Rome", 0.05)),
        corrupted_next_tokens=((" the", 0.2), (" Paris", probability(CORRUPTED))),
    )


def _p(log_odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def planted_shares(
    block: int = 4,
    *,
    n_layers: int = 8,
    tokens: int = len(TOKENS),
    last: int = 4,
    sweeps: Sequence[SweepName] = ("state", "mlp", "attention"),
) -> dict[SweepName, np.ndarray]:
    """What `block` moves from the subject's last token to the last: `state` shows it there before,
    here after; `mlp` early at the subject, `attention` around the block at the read token."""
    found = {}
    for name in sweeps:
        share = np.zeros((tokens, n_layers))
        if "state" in name:
            share[last, : block + 1] = PLANTED[name]
            share[-1, block + 1 :] = PLANTED[name]
        elif name == "mlp":
            share[last, 1:block] = PLANTED[name]
        else:
            share[-1, block : block + 2] = PLANTED[name]
        found[name] = share
    return found


def planted(block: int = 4, *, n_layers: int = 8, **others: object) -> Trace:
    """A trace with a handover in a block."""
    return trace_of(planted_shares(block, n_layers=n_layers), **others)  # type: ignore[arg-type]


def nothing(seed: int, *, runs: int = 10, n_layers: int = 8, noise: float = 1.0) -> Trace:
    """A trace in which restoring does nothing: chance alone moves the cells."""
    flat = {name: np.zeros_like(it) for name, it in planted_shares(n_layers=n_layers).items()}
    return trace_of(flat, seed=seed, runs=runs, noise=noise)


def hostile() -> Trace:
    """A trace whose every token is one that somebody forgets to escape."""
    return trace_of(planted_shares(2, n_layers=4), tokens=HOSTILE)


def graph_beside(
    shares: np.ndarray, *, of: Trace | None = None, hook: str = "pre", **changes: Any
) -> CausalGraph:
    """An answer graph of a trace's prompt whose features contribute these shares `[T, L]`."""
    trace = of or planted()
    layers = tuple(
        LayerReport(str(at), f"blocks.{at}.hook_resid_{hook}", 4, 4.0, 0.1)
        for at in range(trace.n_layers)
    )
    values = {
        "layers": layers,
        "read_position": trace.read,
        "model": trace.model,
        "outputs": (OutputToken(trace.target_ids[0], trace.targets[0], 4.5, 0.9),),
        **changes,
    }
    nodes = [
        Node(FeatureId(str(layer), 1, at), 1.0, effect_on_answer=-float(shares[at, layer]))
        for at, layer in np.ndindex(*shares.shape)
        if shares[at, layer]
    ]
    answer = Node(ANSWER, 4.0, token=trace.targets[0])
    return assemble(answer_run(trace.tokens, trace.targets[0], **values), [*nodes, answer], [])
