"""An SAE as sae-lens gives it, made ready for use: checked, without gradients, without cycles."""

from __future__ import annotations

import json
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from sae_graphs.errors import SAELoadError

REMEDY = "save it again with sae-lens"
# Normalisations that are to be folded into the weights; where they are not, sae-lens goes without.
UNFOLDED = {
    "expected_average_only_in": "fold_activation_norm_scaling_factor",
    "covariance_whitening": "fold_activation_whitening",
}
FACTOR = "scaling_factor"  # of a finetuned SAE: one number a feature, which sae-lens 6 leaves out
ACTIVATION_KEYS = ("activation_fn", "activation_fn_str", "activation")
_FINETUNED = (
    f"was finetuned with a factor for each feature ({FACTOR}), which sae-lens no longer applies; "
    "multiply each row of W_dec by its factor, leave the factors out, set "
    "finetuning_scaling_factor to false, and save the SAE again"
)
CHECKED_VALUES = 2**20  # at once, so that the check takes next to no memory


def ready(load: Callable[[], SAE[Any]], name: str, *, remedy: str = REMEDY) -> SAE[Any]:
    """Load an SAE without gradients and without sae-lens's warnings.

    Raises `SAELoadError` in place of whatever sae-lens and the files' formats raise, and where the
    SAE wants its inputs scaled by a factor that is not there: sae-lens would only warn.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sae = load()
    except Exception as problem:  # of many kinds
        if FACTOR in str(problem):
            raise SAELoadError(f"{name} {_FINETUNED}") from problem
        raise SAELoadError(
            f"{name} cannot be loaded ({first_line(problem)}); {remedy}"
        ) from problem
    check_normalisation(sae, name)
    sae.requires_grad_(False).eval()
    normalise_without_cycle(sae)
    return sae


def check_normalisation(sae: SAE[Any], name: str) -> None:
    """Raise `SAELoadError` where inputs are to be normalised by numbers that are not there."""
    if (folding := UNFOLDED.get(sae.cfg.normalize_activations)) is not None:
        raise SAELoadError(
            f"{name} wants its inputs normalised by numbers that are not in its files "
            f"({sae.cfg.normalize_activations}); load it by a release that has them, or fold them "
            f"in with sae-lens's `{folding}` and save the SAE again"
        )


def check_activation(cfg: Mapping[str, Any], name: str) -> None:
    """Raise `SAELoadError` where an SAE's configuration, as its file has it, names an activation
    that sae-lens would not apply: it goes by the architecture alone, and says nothing.
    """
    architecture = str(cfg.get("architecture") or "standard")
    places = [cfg, *(it for it in (cfg.get("metadata"),) if isinstance(it, Mapping))]
    words = (place.get(name) for place in places for name in ACTIVATION_KEYS)
    declared = next((word for word in words if word), None)
    if declared in (None, "relu", architecture):  # ReLU stood beside any architecture
        return
    kwargs = cfg.get("activation_fn_kwargs")
    k = kwargs.get("k") if isinstance(kwargs, Mapping) else None
    if declared == "topk" and k is not None:
        return  # then sae-lens takes it for a TopK SAE
    applied = {"standard": "relu", "gated": "relu"}.get(architecture, architecture)
    lacks = ", without its k," if declared == "topk" else ""
    raise SAELoadError(
        f"{name} declares the activation {str(declared)!r:.40}{lacks} and sae-lens would apply "
        f"{applied!r:.40} (architecture {architecture!r:.40}); name the architecture that it was "
        "trained with in its cfg.json, or use another SAE"
    )


def check_declared(file: Path, name: str) -> None:
    """Raise where the configuration in a file names what would not be applied: an activation, or
    factors of a finetuned SAE.
    """
    try:
        cfg = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # loading it says what is wrong
    if isinstance(cfg, dict):
        check_activation(cfg, name)
        if cfg.get("finetuning_scaling_factor"):
            raise SAELoadError(f"{name} {_FINETUNED}")


def check_finite(sae: SAE[Any], name: str) -> None:
    """Raise `SAELoadError` where a weight is NaN or infinite."""
    for parameter, values in sae.state_dict().items():
        for some in values.flatten().split(CHECKED_VALUES):
            if not torch.isfinite(some).all():
                raise SAELoadError(
                    f"{name}: {parameter} holds NaN or infinity; get the weights again"
                )


def normalise_without_cycle(sae: SAE[Any]) -> None:
    """Let the SAE's normalisation refer to the SAE weakly.

    sae-lens stores functions on the SAE that hold the SAE itself, so that it would outlive its
    last user until the garbage collector runs.
    """
    type(sae)._setup_activation_normalization(weakref.proxy(sae))


def first_line(problem: BaseException) -> str:
    """What an error says, in short."""
    text = str(problem).strip() or type(problem).__name__
    return " ".join(text.split())[:200]
