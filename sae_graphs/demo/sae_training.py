"""Training the SAEs: sae-lens's multi-SAE runner, one TopK SAE at every residual layer."""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .model import fast_arithmetic
from .plan import Plan
from .tokenizer import load_tokenizer
from .tokens import packed_rows

if TYPE_CHECKING:
    from rich.progress import Progress

    from .train import Workplace

ROWS_AT_ONCE = 32
ROWS_IN_BUFFER = 256


class RowSource:
    """Rows of fresh corpus tokens as the data set that sae-lens reads; without end.

    `advance(count)` is told how many tokens went out.
    """

    def __init__(self, model_folder: Path, plan: Plan, advance: Callable[[int], None]) -> None:
        self.tokenizer = load_tokenizer(model_folder)
        self.plan = plan
        self.advance = advance

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        """The rows from the first one on."""
        plan = self.plan
        for row in packed_rows(self.tokenizer, plan.seed, "saes", plan.context):
            self.advance(plan.context)
            yield {"tokens": row}


def runner_config(plan: Plan, unfinished: Path) -> Any:
    """The configuration of sae-lens's runner; the finished SAEs go to `unfinished`."""
    from sae_lens import LoggingConfig
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunnerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    steps = plan.sae_tokens // plan.sae_batch
    sae = TopKTrainingSAEConfig(
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
    return MultiSAETrainingRunnerConfig(
        saes={name: copy.deepcopy(sae) for name in plan.hook_names},
        hook_names={name: name for name in plan.hook_names},
        model_name="demo",
        model_class_name="TransformerBridge",
        model_from_pretrained_kwargs={},
        dataset_path="sae_graphs.demo.corpus",
        context_size=plan.context,
        prepend_bos=True,
        exclude_special_tokens=True,
        training_tokens=plan.sae_tokens,
        train_batch_size_tokens=plan.sae_batch,
        store_batch_size_prompts=ROWS_AT_ONCE,
        n_batches_in_buffer=ROWS_IN_BUFFER,
        n_batches_for_norm_estimate=20,
        lr=plan.sae_rate,
        lr_end=0.0,
        lr_scheduler_name="constant",
        lr_warm_up_steps=min(200, steps // 10),
        lr_decay_steps=steps // 2,
        dead_feature_window=min(1000, max(1, steps // 4)),
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
    """Trains every SAE of the plan and saves them as `<out>/saes/<hook name>/`.

    Special tokens are left out of the training. The folder appears only when all are trained.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunner
    from transformer_lens.model_bridge import TransformerBridge

    plan = place.plan
    torch.manual_seed(plan.seed)
    unfinished = place.unfinished_saes
    task = progress.add_task("SAEs", total=plan.sae_tokens)
    source = RowSource(place.model, plan, lambda count: progress.advance(task, count))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(str(place.model), device="cpu")
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    config = runner_config(plan, unfinished)
    runner = MultiSAETrainingRunner(
        config,
        override_dataset=source,
        override_model=bridge,
    )
    runner.run()
    progress.update(task, completed=plan.sae_tokens)
    for name in plan.hook_names:
        _move_sae(unfinished / name, place.saes / name)
    return {"tokens": plan.sae_tokens, "features": plan.sae_features, "active": plan.sae_active}


def _move_sae(source: Path, target: Path) -> None:
    """Puts the configuration and weights of one trained SAE into its final folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copyfile(source / name, target / name)
