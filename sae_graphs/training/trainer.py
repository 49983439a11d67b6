"""The second stage: one TopK SAE on stored activations, by sae-lens's trainer, resumable.

Steps, losses, revival of dead features and the schedule are sae-lens's own (`SAETrainer.step`).
What is here says which positions a step sees, and keeps the trainer's whole state so that a
training that was stopped goes on to the same weights, to the last bit.

Letters: `N` positions, `D` d_model, `F` features.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.training.plan import Plan
from sae_graphs.training.store import Store

SAVED_EVERY = 60.0  # seconds of training that a kill may cost
WARM_UP, DECAY = 0.05, 0.5  # shares of the steps
DEAD_AFTER = 200_000  # positions without firing, after which a feature is revived
WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"  # sae-lens's names


class Trainer:
    """An SAE in training: its state after so many steps, and the step after that."""

    def __init__(self, store: Store, plan: Plan, device: str = "cpu") -> None:
        from sae_lens.training.sae_trainer import SAETrainer

        from sae_graphs.training.sparse import SparseTopK

        if len(store) < plan.batch:
            raise SaeGraphsError(
                f"{len(store):,} positions are fewer than one batch of {plan.batch:,}"
            )
        self.store, self.plan = store, plan
        self.steps = plan.steps
        self.scale = store.width**0.5 / store.mean_norm
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            sae = SparseTopK(_sae_config(store.width, plan, device))
        with torch.no_grad():  # it begins at the mean, which the encoder takes off
            sae.b_dec.copy_(store.mean * self.scale)
            sae.b_enc.copy_(-sae.b_dec @ sae.W_enc)
        self.inner = SAETrainer(_config(plan, device), sae, iter(()))
        self.inner.activation_scaler.scaling_factor = self.scale
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def done(self) -> int:
        """Steps made."""
        return self.inner.n_training_steps

    def step(self) -> float:
        """One step; returns the share of its batch's variance that was left unexplained."""
        batch = self.store.at(self._numbers(self.done))  # [B, D]
        output = self.inner.step(batch)
        self.inner.n_training_steps += 1
        left = (output.sae_out - output.sae_in).detach().square().sum()
        return float(left / (output.sae_in - output.sae_in.mean(0)).square().sum())

    def _numbers(self, step: int) -> Tensor:
        """The positions of a step: each pass is another order of all there are."""
        each = len(self.store) // self.plan.batch
        epoch, at = divmod(step, each)
        if epoch != self._epoch:
            source = torch.Generator().manual_seed(1_000_003 * self.plan.seed + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.store), generator=source)
        return self._order[at * self.plan.batch :][: self.plan.batch]

    # -- the whole state ---------------------------------------------------------------------------

    def save(self, file: Path, key: str) -> None:
        """Write everything that later steps depend on, in one step."""
        inner = self.inner
        tensors = {f"sae.{name}": tensor for name, tensor in inner.sae.state_dict().items()}
        adam = inner.optimizer.state_dict()
        for number, held in adam["state"].items():
            tensors |= {f"adam.{number}.{name}": tensor for name, tensor in held.items()}
        tensors["silent"] = inner.n_forward_passes_since_fired
        about = {
            "key": key,
            "steps": inner.n_training_steps,
            "samples": inner.n_training_samples,
            "schedule": inner.lr_scheduler.state_dict(),
            "rates": [group["lr"] for group in adam["param_groups"]],
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(file, save(tensors, metadata={"about": json.dumps(about)}))

    def restore(self, file: Path, key: str) -> bool:
        """Go on from a file; False where there is none of this training, or it is damaged."""
        try:
            with safe_open(file, framework="pt") as opened:
                about = json.loads(opened.metadata()["about"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return False
        if about.get("key") != key:
            return False
        inner = self.inner
        inner.sae.load_state_dict(_below(tensors, "sae"))
        adam = inner.optimizer.state_dict()
        numbers = {name.split(".")[1] for name in tensors if name.startswith("adam.")}
        adam["state"] = {int(number): _below(tensors, f"adam.{number}") for number in numbers}
        inner.optimizer.load_state_dict(adam)
        inner.lr_scheduler.load_state_dict(about["schedule"])
        for group, rate in zip(inner.optimizer.param_groups, about["rates"], strict=True):
            group["lr"] = rate
        inner.n_forward_passes_since_fired = tensors["silent"].to(inner.cfg.device)
        inner.n_training_steps, inner.n_training_samples = about["steps"], about["samples"]
        return True


def train_sae(
    store: Store,
    plan: Plan,
    checkpoint: Path,
    *,
    device: str = "cpu",
    told: Callable[[int, int, float], None] = lambda done, total, fvu: None,
) -> Trainer:
    """Train one SAE to its end, from `checkpoint` where that holds a part of the same training.

    `told` hears the steps done, all of them, and the variance left unexplained lately.
    """
    trainer = Trainer(store, plan, device)
    key = json.dumps([plan.to_json(), store.hook_name, len(store)])
    trainer.restore(checkpoint, key)
    store.read_ahead()
    saved, fvu = time.monotonic(), float("nan")
    while trainer.done < trainer.steps:
        now = trainer.step()
        fvu = now if fvu != fvu else 0.98 * fvu + 0.02 * now
        told(trainer.done, trainer.steps, fvu)
        if time.monotonic() - saved > SAVED_EVERY and trainer.done < trainer.steps:
            trainer.save(checkpoint, key)
            saved = time.monotonic()
    return trainer


def save_sae(trainer: Trainer, folder: Path, about: dict[str, Any]) -> None:
    """Write a finished SAE as a folder of sae-lens, its weights in half precision, in one step.

    The scale of the input is folded into the weights. `about` goes into its metadata.
    """
    sae = trainer.inner.sae
    sae.fold_activation_norm_scaling_factor(trainer.scale)
    for name, value in about.items():
        sae.cfg.metadata[name] = value
    sae.cfg.metadata["hook_name"] = trainer.store.hook_name
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        sae.save_inference_model(draft)
        weights = {name: at.half().contiguous() for name, at in load_file(draft / WEIGHTS).items()}
        save_file(weights, draft / WEIGHTS)
        cfg = json.loads((draft / CONFIG).read_text(encoding="utf-8")) | {"device": "cpu"}
        (draft / CONFIG).write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# -- inside ----------------------------------------------------------------------------------------


def _sae_config(width: int, plan: Plan, device: str) -> Any:
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    return TopKTrainingSAEConfig(
        d_in=width,
        d_sae=plan.features,
        k=plan.active,
        dtype="float32",
        device=device,
        apply_b_dec_to_input=False,  # the encoder's own bias does as much, for less
        normalize_activations="expected_average_only_in",
        rescale_acts_by_decoder_norm=True,
        decoder_init_norm=1.0,
        aux_loss_coefficient=1.0,
    )


def _config(plan: Plan, device: str) -> Any:
    from sae_lens import LoggingConfig
    from sae_lens.config import SAETrainerConfig

    steps = plan.steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SAETrainerConfig(
            total_training_samples=steps * plan.batch,
            train_batch_size_samples=plan.batch,
            lr=plan.rate,
            lr_end=plan.rate,
            lr_scheduler_name="constant",
            lr_warm_up_steps=max(1, int(WARM_UP * steps)),
            lr_decay_steps=int(DECAY * steps),
            dead_feature_window=max(1, min(DEAD_AFTER // plan.batch, steps // 4)),
            device=device,
            logger=LoggingConfig(log_to_wandb=False),
        )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, by the rest of their names."""
    start = f"{prefix}."
    return {name[len(start) :]: at for name, at in tensors.items() if name.startswith(start)}
