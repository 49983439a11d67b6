"""A language model through TransformerLens's bridge: booted, and processed as its SAEs want."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.transformers import (
    determine_architecture_from_hf_config,
    get_hf_model_class_for_architecture,
)

from sae_graphs.errors import ModelLoadError, SaeGraphsError
from sae_graphs.model.plain import Compared, Heard, hear, require_same, require_same_answers
from sae_graphs.model.saes import SAEStack


def check_device(device: str) -> None:
    """Raise `SaeGraphsError` where there is no such device."""
    try:
        kind = torch.device(device).type
    except RuntimeError as problem:
        raise SaeGraphsError(
            f"no device {device!r}; expected cpu, cuda, cuda:N or mps"
        ) from problem
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not available.get(kind, False):
        raise SaeGraphsError(f"device {device!r} is not available here; use --device cpu")


class Booted(NamedTuple):
    """A model as a `TransformerBridge`, what its plain model was heard to do, how far off it is."""

    bridge: Any
    heard: Heard | None
    compared: Compared


class _Witness:
    """Takes the place of transformers' class: loads as that does, and listens before wrapping."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.heard: Heard | None = None

    def from_pretrained(self, source: str, **options: Any) -> Any:
        architecture = determine_architecture_from_hf_config(options["config"])
        loader = get_hf_model_class_for_architecture(architecture)
        plain = loader.from_pretrained(source, **options).to(self.device).eval()
        self.heard = hear(plain)
        return plain


def load_bridge(source: str, device: str, dtype: torch.dtype) -> Booted:
    """A model in a folder or in the cache as a `TransformerBridge`, its weights as they are stored.

    Raises `ModelLoadError` in place of whatever the files and the libraries raise, and
    `SaeGraphsError` where the bridge does not compute what the plain model does.
    """
    witness = _Witness(device)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        bridge = TransformerBridge.boot_transformers(
            source, device=device, dtype=dtype, model_class=witness
        )
        bridge.tokenizer("a", add_special_tokens=False)  # some fail at their first text
    except SaeGraphsError:  # of the plain model's own forward pass
        raise
    except Exception as problem:  # hub, file format and architecture errors of many kinds
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise ModelLoadError(
            f"model {source!r} cannot be loaded ({reason}); expected `demo`, a Hugging Face name "
            "or a local folder with config.json, weights and tokenizer"
        ) from problem
    finally:
        transformers.logging.set_verbosity(verbosity)
    bridge.eval()
    return Booted(bridge, witness.heard, _compared(bridge, witness.heard))


def _compared(bridge: Any, heard: Heard | None) -> Compared:
    if heard is None:
        return Compared(unchecked="it is no decoder of text")
    if not hasattr(bridge, "blocks") or not torch.isfinite(heard.logits).all():
        return Compared(unchecked="it gives nothing to compare")
    return require_same(bridge, heard)


def process_weights(booted: Booted, stack: SAEStack) -> None:
    """Fold and centre as `from_pretrained_no_processing` with the SAEs' own keywords would.

    Raises `SaeGraphsError` where the SAEs want the model processed in different ways, or the
    processed model gives other probabilities.
    """
    wanted: dict[str, bool] = {}
    for layer in stack.layers:
        given = layer.cfg.metadata.model_from_pretrained_kwargs or {}
        known = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
        mine = {key: bool(given.get(key, False)) for key in known}
        if wanted and mine != wanted:
            raise SaeGraphsError(
                f"{stack.name}: the SAEs disagree on the model's weight processing; use SAEs that "
                "were trained alike"
            )
        wanted = mine
    if any(wanted.values()):
        booted.bridge.enable_compatibility_mode(disable_warnings=True, **wanted)
        if booted.heard is not None and not booted.compared.unchecked:
            require_same_answers(booted.bridge, booted.heard)
