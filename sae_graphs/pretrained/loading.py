"""`load`: a model and its SAEs by name or folder, prepared as the SAEs were trained.

What is on the hub is fetched first, after a look at what it takes; then all is loaded from here.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.errors import ModelLoadError, SaeGraphsError, quoted
from sae_graphs.files import bundled_folder
from sae_graphs.keywords import checked
from sae_graphs.model.memory import MemoryPlan, SAESize, format_size, memory_budget, parse_size
from sae_graphs.model.stream import parse_layers
from sae_graphs.pretrained.releases import DEFAULTS, default_saes

if TYPE_CHECKING:
    from sae_graphs.model.shelf import SAESource
    from sae_graphs.pretrained.fetching import Fetch, Fetching

log = logging.getLogger(__name__)

MOST_PLANS = 3  # a repository may change while it is fetched
DTYPES = ("float32", "bfloat16", "float16", "float64")
BUNDLED = "demo"


class Wanted(NamedTuple):
    """What to load: the model's name or folder, its SAEs', which of each layer, which layers."""

    model: str
    saes: str | Path
    pattern: str | None
    layers: tuple[str, str] | None = None


@checked
def load(
    model: str | Path = BUNDLED,
    *,
    saes: str | Path | None = None,
    sae_pattern: str | None = None,
    layers: str | Sequence[str | int] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: str | int | None = None,
    fetching: Fetching | None = None,
) -> Any:
    """An `InstrumentedModel` from `demo`, a Hugging Face model's name, or its local folder.

    `saes` is a folder with one sub-folder per SAE, a sae-lens release, or a repository on the hub;
    the bundled model and those in `releases.DEFAULTS` know theirs. `sae_pattern` says which SAE of
    each layer, where there are several: `layer_{layer}/width_16k/canonical`; `layers` the first
    and the last by label, such as `3:8`, so that no others are fetched and loaded. The model gets
    the weight processing that the SAEs' metadata names.
    `memory` is the budget, such as `4GiB` or a number of bytes; by default four fifths of what
    the device has free. Where it does not hold all SAEs, two at a time are loaded; what it leaves
    for activations and batches is the model's `working_memory`, in bytes.
    What is not here is fetched from the hub, if it fits on the disk and into the budget.
    `fetching`, given what that is and the least memory that it will take, is entered meanwhile and
    gives what is told of the bytes; without it the hub shows its own bars.
    Raises `SaeGraphsError` where either cannot be had or loaded, they do not belong together, or
    the budget cannot hold them.
    """
    wanted = _wanted(model, saes, sae_pattern)._replace(layers=_layers(layers))
    if dtype not in DTYPES:
        raise SaeGraphsError(f"dtype {dtype!r} is not one of {quoted(DTYPES)}")
    if isinstance(memory, str):
        parse_size(memory)
    import torch  # slow to import: the arguments are checked first

    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.saes import stack_of
    from sae_graphs.pretrained.hub import offline
    from sae_graphs.pretrained.sizes import size_of_loaded

    _check_device(device)
    bundled = str(model) == BUNDLED and saes is None and sae_pattern is None
    total = memory_budget(memory, device)
    wanted, name, sources = _fetched(wanted, device, dtype, total, fetching)
    model_bytes = _stored_model_bytes(wanted.model, dtype)
    _check_memory(total, model_bytes, sources)
    with torch.no_grad(), offline():
        bridge = _load_bridge(wanted.model, device, getattr(torch, dtype))
        if model_bytes is None:
            model_bytes = size_of_loaded(bridge)

        def room_for(sizes: tuple[SAESize, ...]) -> int:
            return MemoryPlan(total, model_bytes, sizes).sae_room

        if bundled:
            name = BUNDLED  # no one needs to know where it is installed
        stack = stack_of(sources, wanted.layers, name=name, room_for=room_for)
        _process_weights(bridge, stack)
        instrumented: Any = InstrumentedModel(bridge, stack, name=str(model))
    return _with_plan(instrumented, MemoryPlan(total, model_bytes, stack.sizes))


def _fetched(
    wanted: Wanted, device: str, dtype: str, total: int, fetching: Fetching | None
) -> tuple[Wanted, str, list[SAESource]]:
    """Have everything here: the model by its official name; the stack's name; its SAEs."""
    from dataclasses import replace

    from sae_graphs.pretrained.fetching import plan_fetch, run_fetch
    from sae_graphs.pretrained.find_saes import find_saes
    from sae_graphs.pretrained.models import official_name

    local = Path(wanted.model).is_dir()
    if not local:
        wanted = wanted._replace(model=official_name(wanted.model))
    name, sources = find_saes(
        wanted.saes, wanted.pattern, wanted.layers, device=device, dtype=dtype
    )
    _warn_of_another_model(wanted.model, sources, local=local)
    for _ in range(MOST_PLANS):
        plan = plan_fetch(wanted.model, name, sources, local=local)
        if not plan.files:
            break
        least = _least_memory(plan, wanted.model, sources, dtype, total)
        check = partial(_check_width, wanted.model, sources)
        if fetching is None:
            log.info(plan.words)
            run_fetch(plan, check=check)
        else:
            with fetching(plan, least) as report:
                run_fetch(plan, report, check=check)
        sources = [
            at if at.size_here is None else replace(at, size=at.size_here()) for at in sources
        ]
    return wanted, name, sources


def _check_width(model: str, sources: Sequence[SAESource]) -> None:
    """Raise `SaeGraphsError` where configurations tell that SAEs and model do not fit."""
    from sae_graphs.pretrained.models import width_of

    width = width_of(model)
    for source in sources:
        read = None if source.width is None else source.width()
        if None not in (width, read) and width != read:
            raise SaeGraphsError(
                f"{source.name} reads {read} dimensions, {model} has {width}; use SAEs that were "
                "trained on this model"
            )


def _least_memory(
    plan: Fetch, model: str, sources: Sequence[SAESource], dtype: str, total: int
) -> int | None:
    """The least memory that what is to be fetched will take; None where that cannot be told.

    Raises `SaeGraphsError` where that is more than `total`.
    """
    from sae_graphs.pretrained.sizes import size_of_files

    sizes = [source.size or plan.sae_size for source in sources]
    model_bytes = size_of_files(plan.tensors, dtype, tied=None) or _stored_model_bytes(model, dtype)
    known = tuple(size for size in sizes if size is not None)
    if model_bytes is None or len(known) < len(sizes):
        return None
    return MemoryPlan(total, model_bytes, known).least


def _check_memory(total: int, model_bytes: int | None, sources: Sequence[SAESource]) -> None:
    """Raise `SaeGraphsError` where the budget is too small, before anything is loaded."""
    from sae_graphs.model.shelf import SAEShelf

    sizes = SAEShelf().sizes(sources)
    if model_bytes is not None and sizes:
        MemoryPlan(total, model_bytes, sizes)


def _stored_model_bytes(source: str, dtype: str) -> int | None:
    """What a model on this disk takes once loaded, at most; None where its files do not tell."""
    from sae_graphs.pretrained.models import is_tied, stored_tensors
    from sae_graphs.pretrained.sizes import size_of_files

    return size_of_files(stored_tensors(source), dtype, tied=is_tied(source))


def _warn_of_another_model(model: str, sources: Sequence[SAESource], *, local: bool) -> None:
    """Say so where a release was trained on a model of another name."""
    from sae_graphs.pretrained.models import official_name

    trained = {source.trained_on for source in sources} - {None}
    if local or not trained:
        return
    names = {official_name(str(name)).rpartition("/")[2].lower() for name in trained}
    if model.rpartition("/")[2].lower() not in names:
        log.warning("these SAEs were trained on %s, not on %s", quoted(sorted(names)), model)


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


def _layers(layers: str | Sequence[str | int] | None) -> tuple[str, str] | None:
    """First and last layer, from `"3:8"`, `("3", "8")` or `(3, 8)`."""
    if layers is None or isinstance(layers, str):
        return parse_layers(layers)
    if not isinstance(layers, tuple | list) or len(layers) != 2:
        raise SaeGraphsError(f"layers {layers!r:.60}; expected first and last, such as '3:8'")
    return str(layers[0]), str(layers[1])


def _wanted(model: str | Path, saes: str | Path | None, pattern: str | None) -> Wanted:
    if not isinstance(model, str | Path):
        raise SaeGraphsError(
            f"a {type(model).__name__} is no name and no folder; an object that is a model goes to "
            "sae_graphs.InstrumentedModel(model, saes)"
        )
    name = str(model)
    if saes is not None and not str(saes):
        raise SaeGraphsError("no SAEs given; expected a folder or a sae-lens release")
    if pattern is not None and not pattern:
        raise SaeGraphsError("the SAE pattern is empty; expected one such as layer_{layer}/*")
    if name == BUNDLED:
        folder = bundled_folder()
        return Wanted(str(folder / "model"), folder / "saes" if saes is None else saes, pattern)
    if not name:
        raise ModelLoadError("no model given; expected `demo`, a Hugging Face name or a folder")
    folder = Path(name)
    if name.startswith(("/", ".", "~")) and not folder.exists():
        raise ModelLoadError(
            f"there is no folder {name}; expected a Hugging Face model folder, the name of a model "
            "on the hub, or `demo`"
        )
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelLoadError(f"{name} has no config.json; expected a Hugging Face model folder")
    if saes is not None:
        return Wanted(name, saes, pattern)
    default = None if folder.exists() else default_saes(name)  # a folder may hold anything
    if default is None:
        near = difflib.get_close_matches(name.rpartition("/")[2].lower(), DEFAULTS, n=3)
        hint = f"; did you mean {quoted(near)}?" if near and not folder.exists() else ""
        raise SaeGraphsError(
            f"no SAEs are known for {name}; name a folder or a sae-lens release with --saes "
            f"(`sae-graphs models` lists them){hint}"
        )
    return Wanted(name, default.release, pattern or default.pattern)


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
        bridge.tokenizer("a", add_special_tokens=False)  # some fail at their first text
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
