"""`load`: a model and its SAEs by name or folder, prepared as the SAEs were trained."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from sae_graphs.errors import ModelLoadError, SaeGraphsError, quoted
from sae_graphs.headers import tensor_sizes
from sae_graphs.memory import (
    MIB,
    MemoryPlan,
    SAESize,
    format_size,
    memory_budget,
    parse_size,
)

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16", "float64")
JOINT_PROJECTION = re.compile(r"c_attn\.|query_key_value|qkv", re.IGNORECASE)
BUFFERS = 64 * MIB  # attention masks and rotary tensors, which no file holds
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
    memory: str | int | None = None,
) -> Any:
    """An `InstrumentedModel` from `demo`, a Hugging Face model's name, or its local folder.

    `saes` is a folder with one sub-folder per SAE, or a sae-lens release; the bundled model and
    GPT-2 small know theirs. The model gets the weight processing that the SAEs' metadata names.
    `memory` is the budget, such as `4GiB` or a number of bytes; by default four fifths of what
    the device has free. Where it does not hold all SAEs, two at a time are loaded; what it leaves
    for activations and batches is the model's `working_memory`, in bytes.
    Raises `SaeGraphsError` where either cannot be loaded, they do not belong together, or the
    budget cannot hold them.
    """
    source, release = _sources(model, saes)
    if dtype not in DTYPES:
        raise SaeGraphsError(f"dtype {dtype!r} is not one of {quoted(DTYPES)}")
    if isinstance(memory, str):
        parse_size(memory)
    import torch  # slow to import: the arguments are checked first

    from sae_graphs.instrument import InstrumentedModel
    from sae_graphs.sae_files import find_saes
    from sae_graphs.saes import load_stack
    from sae_graphs.shelf import SAEShelf

    _check_device(device)
    bundled = str(model) == BUNDLED and saes is None
    stack_name = BUNDLED if bundled else None  # no one needs to know where it is installed
    total = memory_budget(memory, device)
    with torch.no_grad():
        sizes = SAEShelf().sizes(find_saes(release, device=device, dtype=dtype))
        model_bytes = _stored_model_bytes(source, dtype)
        if model_bytes is not None and sizes:
            MemoryPlan(total, model_bytes, sizes)  # before anything is fetched for nothing
        bridge = _load_bridge(source, device, getattr(torch, dtype))
        if model_bytes is None:
            model_bytes = _loaded_model_bytes(bridge)

        def room_for(sizes: tuple[SAESize, ...]) -> int:
            return MemoryPlan(total, model_bytes, sizes).sae_room

        stack = load_stack(release, device=device, dtype=dtype, name=stack_name, room_for=room_for)
        _process_weights(bridge, stack)
        instrumented: Any = InstrumentedModel(bridge, stack, name=str(model))
    return _with_plan(instrumented, MemoryPlan(total, model_bytes, stack.sizes))


def _with_plan(instrumented: Any, plan: MemoryPlan) -> Any:
    instrumented.memory_plan = plan
    instrumented.working_memory = plan.working
    if not plan.keeps_all:
        log.warning(
            "%d SAEs take %s: two at a time are loaded, which is slower; a budget of %s keeps all",
            len(plan.saes),
            format_size(plan.stack),
            format_size(plan.least_keeping_all),
        )
    return instrumented


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
        bridge.enable_compatibility_mode(disable_warnings=True, **wanted)


# -- the model's size ------------------------------------------------------------------------------


def _stored_model_bytes(source: str, dtype: str) -> int | None:
    """What a model on this disk takes once loaded, at most; None where its files do not tell.

    The bridge splits a joint projection to queries, keys and values, and keeps both. Weight
    processing unties an unembedding that is tied to the embedding, the largest tensor.
    """
    folder = _local_folder(source)
    if folder is None:
        return None
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(folder.glob("model-*-of-*.safetensors"))
    tensors = tensor_sizes(files, dtype)
    if not tensors:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tied = bool(config.get("tie_word_embeddings", True))
    except (OSError, ValueError, AttributeError):
        return None  # whoever loads the model says what is wrong with it
    weights = sum(size.loaded for size in tensors.values())
    split = sum(size.loaded for name, size in tensors.items() if JOINT_PROJECTION.search(name))
    largest = max(size.loaded for size in tensors.values())
    return _model_bytes(weights + split, largest if tied else 0)


def _local_folder(source: str) -> Path | None:
    """Where a model lies, if it is here: its own folder, or the hub's cache."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(source, "config.json")
    except ValueError:  # not a name that the hub could know
        return None
    return Path(found).parent if isinstance(found, str) else None


def _loaded_model_bytes(bridge: Any) -> int:
    """What a loaded model takes, at most, once its weights are processed."""
    tensors = [*bridge.parameters(), *bridge.buffers()]
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return _model_bytes(sum(sizes.values()), max(sizes.values()))


def _model_bytes(weights: int, untied: int) -> int:
    return weights + weights // 50 + untied + BUFFERS  # a fiftieth: biases that processing adds
