"""Training the SAEs: sae-lens's multi-SAE runner, one TopK SAE at every residual layer."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.demo.model import fast_arithmetic
from training.demo.plan import Plan
from training.demo.tokenizer import load_tokenizer
from training.demo.tokens import packed_rows

if TYPE_CHECKING:
    from rich.progress import Progress

    from training.demo.workplace import Workplace

ROWS_AT_ONCE = 32
ROWS_IN_BUFFER = 256
NORM_BATCHES = 20


@dataclass(frozen=True)
class Training:
    """One run of the trainer: which SAEs, on which part of the corpus, how long and how fast."""

    part: str
    hook_names: tuple[str, ...]
    tokens: int
    rate: float
    dead_steps: int  # a feature silent for so many steps counts as dead and is revived


class RowSource:
    """Rows of fresh corpus tokens as the data set that sae-lens reads; without end.

    `advance(count)` is told how many tokens went out.
    """

    def __init__(
        self, model_folder: Path, plan: Plan, part: str, advance: Callable[[int], None]
    ) -> None:
        self.tokenizer = load_tokenizer(model_folder)
        self.plan = plan
        self.part = part
        self.advance = advance

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        """The rows from the first one on."""
        plan = self.plan
        for row in packed_rows(self.tokenizer, plan.seed, self.part, plan.context):
            self.advance(plan.context)
            yield {"tokens": row}


def sae_config(plan: Plan) -> Any:
    """The configuration of one SAE, new for each call: the runner writes into its metadata."""
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    return TopKTrainingSAEConfig(
        d_in=plan.width,
        d_sae=plan.sae_features,
        k=plan.sae_active,
        dtype="float32",
        device="cpu",
        apply_b_dec_to_input=True,
        normalize_activations="expected_average_only_in",
        rescale_acts_by_decoder_norm=True,
        decoder_init_norm=1.0,
        aux_loss_coefficient=1.0,
    )


def runner_config(plan: Plan, training: Training, unfinished: Path) -> Any:
    """The configuration of sae-lens's runner; the finished SAEs go to `unfinished`."""
    from sae_lens import LoggingConfig
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunnerConfig

    steps = training.tokens // plan.sae_batch
    return MultiSAETrainingRunnerConfig(
        saes={name: sae_config(plan) for name in training.hook_names},
        hook_names={name: name for name in training.hook_names},
        model_name="demo",
        model_class_name="TransformerBridge",
        model_from_pretrained_kwargs={},
        dataset_path="training.demo.corpus",
        context_size=plan.context,
        prepend_bos=True,
        exclude_special_tokens=True,
        training_tokens=training.tokens,
        train_batch_size_tokens=plan.sae_batch,
        store_batch_size_prompts=ROWS_AT_ONCE,
        n_batches_in_buffer=ROWS_IN_BUFFER,
        n_batches_for_norm_estimate=NORM_BATCHES,
        lr=training.rate,
        lr_end=0.0,
        lr_scheduler_name="constant",
        lr_warm_up_steps=min(200, steps // 10),
        lr_decay_steps=steps // 2,
        dead_feature_window=min(training.dead_steps, max(1, steps // 4)),
        feature_sampling_window=500,
        device="cpu",
        autocast=fast_arithmetic(),
        seed=plan.seed,
        logger=LoggingConfig(log_to_wandb=False),
        n_checkpoints=0,
        checkpoint_path=None,
        output_path=str(unfinished),
    )


def train_saes(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains every SAE of the plan and saves them as `<out>/saes/<hook name>/`."""
    plan = place.plan
    training = Training(
        "saes", plan.hook_names, plan.sae_tokens, plan.sae_rate, plan.sae_dead_steps
    )
    _run(place, progress, training)
    return {"tokens": plan.sae_tokens, "features": plan.sae_features, "active": plan.sae_active}


def refine(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains the SAEs of the early layers once more, reviving features that have died."""
    plan = place.plan
    training = Training(
        "refining",
        plan.refined_hook_names,
        plan.refining_tokens,
        plan.refining_rate,
        plan.refining_dead_steps,
    )
    _run(place, progress, training, start=place.saes)
    return {"tokens": plan.refining_tokens, "hook_names": list(training.hook_names)}


def _run(
    place: Workplace, progress: Progress, training: Training, start: Path | None = None
) -> None:
    """Trains, from the SAEs in `start` or from new ones, and moves the results to their place.

    Special tokens are left out of the training. Nothing in `<out>/saes` changes before the end.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunner
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(place.plan.seed)
    task = progress.add_task(f"SAEs, {training.part}", total=training.tokens)
    source = RowSource(
        place.model, place.plan, training.part, lambda count: progress.advance(task, count)
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(str(place.model), device="cpu")
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    started = None
    if start is not None:
        started = started_saes(place.plan, training, start, bridge, source)
    runner = MultiSAETrainingRunner(
        runner_config(place.plan, training, place.unfinished_saes),
        override_dataset=source,
        override_model=bridge,
        override_saes=started,
    )
    runner.run()
    progress.update(task, completed=training.tokens)
    for name in training.hook_names:
        _move_sae(place.unfinished_saes / name, place.saes / name)


def started_saes(
    plan: Plan, training: Training, folder: Path, bridge: Any, source: RowSource
) -> dict[str, Any]:
    """Trainable SAEs with the weights of the finished ones in `folder`.

    A finished SAE has the scale of its input folded into its weights; the trainer scales the input
    again, to a mean norm of sqrt(width), so the scale is taken out of the weights first.
    """
    import torch
    from sae_lens.saes.topk_sae import TopKTrainingSAE
    from safetensors.torch import load_file

    rows = [row["tokens"] for row in islice(source, NORM_BATCHES)]
    tokens = torch.tensor(rows)
    names = list(training.hook_names)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens, names_filter=names)
    found = {}
    for name in names:
        norm = cache[name][tokens != 0].norm(dim=-1).mean()
        scale = float(plan.width**0.5 / norm)
        weights = load_file(str(folder / name / "sae_weights.safetensors"))
        sae = TopKTrainingSAE(sae_config(plan))
        with torch.no_grad():
            sae.W_enc.copy_(weights["W_enc"] / scale)
            sae.b_enc.copy_(weights["b_enc"])
            sae.W_dec.copy_(weights["W_dec"] * scale)
            sae.b_dec.copy_(weights["b_dec"] * scale)
        found[name] = sae
    return found


def _move_sae(source: Path, target: Path) -> None:
    """Puts the configuration and weights of one trained SAE into its final folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copyfile(source / name, target / name)
