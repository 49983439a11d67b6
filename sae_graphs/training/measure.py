"""How faithful SAEs are on text that they were not trained on: FVU, L0, dead features, loss.

Left out are the positions that were left out of the training: the first of each row, and outliers
of the norm. Cross-entropy is in nats, of the next token at every position but the first and the
last; an SAE's output, or zeros, stands in the place of the stream at the positions that count.

Letters: `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.rows import Rows as Changed
from sae_graphs.model.rows import Where
from sae_graphs.model.saes import SAELayer
from sae_graphs.training.activations import ROWS_AT_ONCE
from sae_graphs.training.rows import Rows

LOSS_ROWS = 64  # on which the loss is measured: each costs a pass for every SAE
NO_LIMIT = float("inf")


@dataclass
class Sums:
    """Sums over positions, from which the numbers of an SAE follow."""

    positions: int = 0
    error: float = 0.0
    square: float = 0.0
    active: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    fired: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.bool))

    def add(self, stream: Tensor, layer: SAELayer) -> None:
        """Count positions `[N, D]`."""
        acts = layer.encode(stream)  # [N, F]
        self.error += float((stream - layer.decode(acts, stream)).double().square().sum())
        self.square += float(stream.double().square().sum())
        self.total = self.total + stream.double().sum(0)
        self.active += int((acts != 0).sum())
        self.fired = self.fired | (acts != 0).any(0)
        self.positions += len(stream)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.positions + other.positions,
            self.error + other.error,
            self.square + other.square,
            self.active + other.active,
            self.total + other.total,
            self.fired | other.fired,
        )

    @property
    def fvu(self) -> float:
        """The share of the variance, about these positions' mean, that is left unexplained."""
        return self.error / (self.square - float(self.total.square().sum()) / self.positions)

    def numbers(self) -> dict[str, float]:
        """FVU, L0 and the share of features that never fired, in per cent."""
        return {
            "fvu": round(self.fvu, 5),
            "l0": round(self.active / self.positions, 3),
            "dead_percent": round(100.0 * float((~self.fired).double().mean()), 3),
        }


@dataclass
class Losses:
    """The mean loss over positions: clean, through an SAE, and with zeros in its place."""

    positions: int = 0
    clean: float = 0.0
    sae: float = 0.0
    zero: float = 0.0

    def __add__(self, other: Losses) -> Losses:
        return Losses(
            self.positions + other.positions,
            self.clean + other.clean,
            self.sae + other.sae,
            self.zero + other.zero,
        )

    def numbers(self) -> dict[str, float]:
        """The three, and the share of the loss that zeros cost which the SAE recovers."""
        clean, sae, zero = (at / max(1, self.positions) for at in (self.clean, self.sae, self.zero))
        return {
            "ce_clean": round(clean, 4),
            "ce_sae": round(sae, 4),
            "ce_zero": round(zero, 4),
            "ce_recovered": round((zero - sae) / (zero - clean), 5) if zero != clean else 1.0,
        }


@torch.no_grad()
def measure(
    model: LanguageModel,
    layers: Sequence[SAELayer],
    rows: Rows,
    *,
    loss_rows: int = LOSS_ROWS,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Every SAE's numbers on the rows that are held out, in all and by kind of text, as JSON data.

    `told` hears the rows done, of both measurements.
    """
    loss_rows = min(loss_rows, rows.held_out)
    total = rows.held_out + loss_rows
    sums = _sums(model, layers, rows, lambda done: told(done, total))
    losses = _losses(model, layers, rows, loss_rows, lambda done: told(rows.held_out + done, total))
    return {
        "tokens": rows.held_out * (rows.ids.shape[1] - 1),
        "loss_tokens": loss_rows * (rows.ids.shape[1] - 2),
        "layers": [
            {
                "hook_name": layer.point.hook_name,
                **sum(sums[depth].values(), Sums()).numbers(),
                **sum(losses[depth].values(), Losses()).numbers(),
                "kinds": {
                    rows.kinds[kind]: {
                        "fvu": round(of_kind.fvu, 5),
                        "ce_recovered": losses[depth][kind].numbers()["ce_recovered"]
                        if kind in losses[depth]
                        else None,
                    }
                    for kind, of_kind in sorted(sums[depth].items())
                },
            }
            for depth, layer in enumerate(layers)
        ],
    }


def limit_of(layer: SAELayer) -> float:
    """The norm above which a position was left out of an SAE's training."""
    found = layer.cfg.metadata.outlier_norm
    return NO_LIMIT if found is None else float(found)


def _sums(
    model: LanguageModel, layers: Sequence[SAELayer], rows: Rows, told: Callable[[int], None]
) -> list[dict[int, Sums]]:
    """For each SAE, what it leaves of the stream, by kind of text."""
    points = [layer.point for layer in layers]
    sums: list[dict[int, Sums]] = [{} for _ in layers]
    device = next(model.model.parameters()).device
    for start in range(0, rows.held_out, ROWS_AT_ONCE):
        ids = rows.measured[start : start + ROWS_AT_ONCE].to(device)
        kinds = rows.kind[start : start + len(ids)]
        for depth, stream in enumerate(model.streams_at(ids, points)):
            for kind in kinds.unique().tolist():
                part = stream[kinds == kind][:, 1:].flatten(0, 1)  # [N, D]
                part = part[part.norm(dim=-1) <= limit_of(layers[depth])]
                sums[depth].setdefault(kind, Sums()).add(part, layers[depth])
        told(start + len(ids))
    return sums


def _losses(
    model: LanguageModel,
    layers: Sequence[SAELayer],
    rows: Rows,
    count: int,
    told: Callable[[int], None],
) -> list[dict[int, Losses]]:
    """For each SAE, the loss with its output in the stream, by kind of text."""
    losses: list[dict[int, Losses]] = [{} for _ in layers]
    for number in range(count):
        ids, kind = rows.measured[number], int(rows.kind[number])
        run = model.run(ids.tolist())
        clean = _loss(run.logits[1:-1], ids)
        for depth, layer in enumerate(layers):
            stream = model.replay.stream_at(run, layer.point)  # [T, D]
            kept = stream.norm(dim=-1) <= limit_of(layer)
            kept[0] = False
            at = kept.nonzero()[:, 0]
            ours = layer.decode(layer.encode(stream[at]), stream[at])
            where = Where(
                torch.arange(2, device=at.device).repeat_interleave(len(at)), at.repeat(2)
            )
            change = Changed(where, torch.cat([ours, torch.zeros_like(ours)]))
            read = torch.arange(1, len(ids) - 1, device=at.device)
            reads = Where(
                torch.arange(2, device=at.device).repeat_interleave(len(read)), read.repeat(2)
            )
            sae, zero = model.run_to_logits(run, layer.point, change, reads).chunk(2)
            found = Losses(len(read), clean, _loss(sae, ids), _loss(zero, ids))
            losses[depth][kind] = losses[depth].get(kind, Losses()) + found
        told(number + 1)
    return losses


def _loss(logits: Tensor, ids: Tensor) -> float:
    """The sum of the losses at all positions but the first and the last, from logits `[T-2, V]`."""
    return float(cross_entropy(logits.double(), ids[2:].to(logits.device), reduction="sum"))
