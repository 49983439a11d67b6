"""`load`: a model and its SAEs by name or folder, prepared as the SAEs were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_graphs.errors import ModelLoadError, SaeGraphsError, quoted

DTYPES = ("float32", "bfloat16", "float16", "float64")
DEFAULT_SAES = {"gpt2": "gpt2-small-res-jb", "gpt2-small": "gpt2-small-res-jb"}
HUB_NAMES = {"gpt2-small": "gpt2"}
BUNDLED = "demo"


def bundled_folder() -> Path:
    """Where the bundled model lies: inside an installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package / "autoencoders" / "demo", package.parent / "autoencoders" / "demo"):
        if (folder / "model" / "config.json").is_file():
            return folder
    raise ModelLoadError(
        "the bundled model is missing; install the package again, or rebuild it with "
        "`python -m sae_graphs.demo train`"
    )


def load(
    model: str | Path = BUNDLED,
    *,
    saes: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Any:
    """An `InstrumentedModel` from `demo`, a Hugging Face model's name, or its local folder.

    `saes` is a folder with one sub-folder per SAE, or a sae-lens release; the bundled model and
    GPT-2 small know theirs. The model gets the weight processing that the SAEs' metadata names.
    Raises `SaeGraphsError` where either cannot be loaded or they do not belong together.
    """
    source, release = _sources(model, saes)
    if dtype not in DTYPES:
        raise SaeGraphsError(f"dtype {dtype!r} is not one of {quoted(DTYPES)}")
    import torch  # slow to import: the arguments are checked first

    from sae_graphs.instrument import InstrumentedModel
    from sae_graphs.saes import check_source, load_stack

    _check_device(device)
    bundled = str(model) == BUNDLED and saes is None
    stack_name = BUNDLED if bundled else None  # no one needs to know where it is installed
    with torch.no_grad():
        check_source(release)  # before a model is fetched for nothing
        bridge = _load_bridge(source, device, getattr(torch, dtype))
        stack = load_stack(release, device=device, dtype=dtype, name=stack_name)
        _process_weights(bridge, stack)
        return InstrumentedModel(bridge, stack, name=str(model))


def _sources(model: str | Path, saes: str | Path | None) -> tuple[str, str | Path]:
    name = str(model)
    if saes is not None and not str(saes):
        raise SaeGraphsError("no SAEs given; expected a folder or a sae-lens release")
    if name == BUNDLED:
        folder = bundled_folder()
        return str(folder / "model"), folder / "saes" if saes is None else saes
    if not name:
        raise ModelLoadError("no model given; expected `demo`, a Hugging Face name or a folder")
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelLoadError(f"{name} has no config.json; expected a Hugging Face model folder")
    if saes is None and name not in DEFAULT_SAES:
        raise SaeGraphsError(
            f"no SAEs are known for {name}; name a folder or a sae-lens release with --saes"
        )
    return HUB_NAMES.get(name, name), DEFAULT_SAES[name] if saes is None else saes


def _check_device(device: str) -> None:
    import torch

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


def _load_bridge(source: str, device: str, dtype: Any) -> Any:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        bridge = TransformerBridge.boot_transformers(source, device=device, dtype=dtype)
    except Exception as problem:  # hub, file format and architecture errors of many kinds
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise ModelLoadError(
            f"model {source!r} cannot be loaded ({reason}); expected `demo`, a Hugging Face name "
            "or a local folder with config.json, weights and tokenizer"
        ) from problem
    finally:
        transformers.logging.set_verbosity(verbosity)
    bridge.eval()
    return bridge


def _process_weights(bridge: Any, stack: Any) -> None:
    """Fold and centre as `from_pretrained_no_processing` with the SAEs' own keywords would."""
    wanted: dict[str, bool] = {}
    for layer in stack.layers:
        given = layer.sae.cfg.metadata.model_from_pretrained_kwargs or {}
        known = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
        mine = {key: bool(given.get(key, False)) for key in known}
        if wanted and mine != wanted:
            raise SaeGraphsError(
                f"{stack.name}: the SAEs disagree on the model's weight processing; use SAEs that "
                "were trained alike"
            )
        wanted = mine
    if any(wanted.values()):
        bridge.enable_compatibility_mode(disable_warnings=True, **wanted)
