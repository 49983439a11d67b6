"""`load`: a model and its SAEs by name or folder, prepared as the SAEs were trained.

`load_model` does the same for a model alone. What is on the hub is fetched first, after a look at
what it takes; then all is loaded from here.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sae_graphs.errors import ModelLoadError, SaeGraphsError, quoted
from sae_graphs.files import bundled_folder
from sae_graphs.keywords import checked
from sae_graphs.model.memory import MemoryPlan, SAESize, format_size, memory_budget, parse_size
from sae_graphs.model.stream import parse_layers
from sae_graphs.pretrained.releases import DEFAULTS, default_saes
from sae_graphs.pretrained.smollm2 import shipped_saes

if TYPE_CHECKING:
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.model.shelf import SAESource
    from sae_graphs.pretrained.bridge import Booted
    from sae_graphs.pretrained.fetching import Fetch, Fetching

log = logging.getLogger(__name__)

Planned = TypeVar("Planned", bound="LanguageModel")

MOST_PLANS = 3  # a repository may change while it is fetched
DTYPES = ("float32", "bfloat16", "float16", "float64")
BUNDLED = "demo"


class Wanted(NamedTuple):
    """What to load: the model's name or folder, its SAEs', which of each layer, which layers.

    Without `saes`, the model alone. `called` is what the model is called, `stack` its SAEs, if not
    as they are found.
    """

    called: str
    model: str
    saes: str | Path | None = None
    pattern: str | None = None
    layers: tuple[str, str] | None = None
    stack: str = ""


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
) -> InstrumentedModel:
    """An `InstrumentedModel` from `demo`, `smollm2`, a Hugging Face model's name, or its folder.

    A GGUF file serves as well: it is converted into a folder once, in the cache. `saes` is a folder
    with one sub-folder per SAE, a sae-lens release, or a repository on the hub; the bundled model,
    `smollm2` and those in `releases.DEFAULTS` know theirs. `sae_pattern` says which SAE of
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
    loaded: InstrumentedModel = _loaded(wanted, device, dtype, memory, fetching)
    return loaded


@checked
def load_model(
    model: str | Path = BUNDLED,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    memory: str | int | None = None,
    fetching: Fetching | None = None,
) -> LanguageModel:
    """A `LanguageModel` without SAEs, from all that `load` takes for a model.

    Its weights are as they are stored, and BOS is put before a prompt where the model's own
    tokenizer does so: GPT-2's does not. The bundled model always has it. All else, and the options,
    are as in `load`.
    Raises `SaeGraphsError` where the model cannot be had or loaded, or the budget cannot hold it.
    """
    wanted = Wanted(str(model), _source_of(model, "LanguageModel(model)"))
    loaded: LanguageModel = _loaded(wanted, device, dtype, memory, fetching)
    return loaded


def _loaded(
    wanted: Wanted,
    device: str,
    dtype: str,
    memory: str | int | None,
    fetching: Fetching | None,
) -> Any:
    """What is wanted, fetched where it is not here: with SAEs or without."""
    if dtype not in DTYPES:
        raise SaeGraphsError(f"dtype {dtype!r} is not one of {quoted(DTYPES)}")
    if isinstance(memory, str):
        parse_size(memory)
    import torch  # slow to import: the arguments are checked first

    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.pretrained.bridge import check_device, load_bridge
    from sae_graphs.pretrained.hub import offline
    from sae_graphs.pretrained.sizes import size_of_loaded

    check_device(device)
    total = memory_budget(memory, device)
    wanted, sources = _fetched(wanted, device, dtype, total, fetching)
    model_bytes = _stored_model_bytes(wanted.model, dtype)
    _check_memory(total, model_bytes, sources)
    with torch.no_grad(), offline():
        booted = load_bridge(wanted.model, device, getattr(torch, dtype))
        if model_bytes is None:
            model_bytes = size_of_loaded(booted.bridge)
        if wanted.saes is None:
            plan = MemoryPlan(total, model_bytes, ())
            bos = True if wanted.called == BUNDLED else None  # it has never been without
            loaded = LanguageModel(booted.bridge, name=wanted.called, prepend_bos=bos)
        else:
            loaded, plan = _with_saes(booted, wanted, sources, total, model_bytes)
        loaded.compared = booted.compared
        return _with_plan(loaded, plan)


def _with_saes(
    booted: Booted, wanted: Wanted, sources: Sequence[SAESource], total: int, model_bytes: int
) -> tuple[InstrumentedModel, MemoryPlan]:
    """The model and its SAEs, as many loaded at a time as the budget of `total` bytes holds."""
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.saes import stack_of
    from sae_graphs.pretrained.bridge import process_weights

    def room_for(sizes: tuple[SAESize, ...]) -> int:
        return MemoryPlan(total, model_bytes, sizes).sae_room

    stack = stack_of(sources, wanted.layers, name=wanted.stack, room_for=room_for)
    process_weights(booted, stack)
    instrumented = InstrumentedModel(booted.bridge, stack, name=wanted.called)
    return instrumented, MemoryPlan(total, model_bytes, stack.sizes)


def _fetched(
    wanted: Wanted, device: str, dtype: str, total: int, fetching: Fetching | None
) -> tuple[Wanted, list[SAESource]]:
    """Have everything here: the model by its official name, the stack by its own; its SAEs."""
    from dataclasses import replace

    from sae_graphs.pretrained.fetching import plan_fetch, run_fetch
    from sae_graphs.pretrained.models import official_name

    wanted = _converted(wanted, fetching)
    local = Path(wanted.model).is_dir()
    if not local:
        wanted = wanted._replace(model=official_name(wanted.model))
    name = ""
    sources: list[SAESource] = []
    if wanted.saes is not None:
        from sae_graphs.pretrained.find_saes import find_saes

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
    return wanted._replace(stack=wanted.stack or name), sources


def _converted(wanted: Wanted, fetching: Fetching | None) -> Wanted:
    """`smollm2` from where it can be had, and a GGUF file as the folder that is made of it."""
    from sae_graphs.pretrained.gguf import is_gguf, made_folder
    from sae_graphs.pretrained.smollm2 import NAME, check_file, smollm2_source

    if wanted.model == NAME:
        source = smollm2_source()
        wanted = wanted._replace(model=source, called=NAME if is_gguf(source) else source)
    if not is_gguf(wanted.model):
        return wanted
    made = made_folder(wanted.model, fetching)
    if wanted.called == NAME:
        check_file(made.digest)
    return wanted._replace(model=str(made.folder))


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
    if model_bytes is not None and (sizes or not sources):
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


def _with_plan(model: Planned, plan: MemoryPlan) -> Planned:
    model.memory_plan = plan
    model.working_memory = plan.working
    if not plan.keeps_all:
        log.warning(
            "%d SAEs take %s: two at a time are loaded, which is slower; a budget of %s keeps all",
            len(plan.saes),
            format_size(plan.stack),
            format_size(plan.least_keeping_all),
        )
    return model


def _layers(layers: str | Sequence[str | int] | None) -> tuple[str, str] | None:
    """First and last layer, from `"3:8"`, `("3", "8")` or `(3, 8)`."""
    if layers is None or isinstance(layers, str):
        return parse_layers(layers)
    if not isinstance(layers, tuple | list) or len(layers) != 2:
        raise SaeGraphsError(f"layers {layers!r:.60}; expected first and last, such as '3:8'")
    return str(layers[0]), str(layers[1])


def _source_of(model: str | Path, instead: str) -> str:
    """A model's name on the hub or its folder; raises where it is neither.

    `instead` is where an object that is a model goes.
    """
    if not isinstance(model, str | Path):
        raise SaeGraphsError(
            f"a {type(model).__name__} is no name and no folder; an object that is a model goes to "
            f"sae_graphs.{instead}"
        )
    name = str(model)
    if name == BUNDLED:
        return str(bundled_folder() / "model")
    if not name:
        raise ModelLoadError("no model given; expected `demo`, a Hugging Face name or a folder")
    folder = Path(name)
    if name.lower().endswith(".gguf") and not folder.is_dir():
        return name
    if name.startswith(("/", ".", "~")) and not folder.exists():
        raise ModelLoadError(
            f"there is no folder {name}; expected a Hugging Face model folder, the name of a model "
            "on the hub, or `demo`"
        )
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelLoadError(f"{name} has no config.json; expected a Hugging Face model folder")
    return name


def _wanted(model: str | Path, saes: str | Path | None, pattern: str | None) -> Wanted:
    if saes is not None and not str(saes):
        raise SaeGraphsError("no SAEs given; expected a folder or a sae-lens release")
    if pattern is not None and not pattern:
        raise SaeGraphsError("the SAE pattern is empty; expected one such as layer_{layer}/*")
    source, name = _source_of(model, "InstrumentedModel(model, saes)"), str(model)
    if saes is not None:
        return Wanted(name, source, saes, pattern)
    if name == BUNDLED:  # no one needs to know where it is installed
        stack = BUNDLED if pattern is None else ""
        return Wanted(name, source, bundled_folder() / "saes", pattern, stack=stack)
    own = shipped_saes(name)
    if own is not None:
        return Wanted(name, source, own, pattern, stack=name if pattern is None else "")
    folder = Path(name)
    default = None if folder.exists() else default_saes(name)  # a folder may hold anything
    if default is None:
        near = difflib.get_close_matches(name.rpartition("/")[2].lower(), DEFAULTS, n=3)
        hint = f"; did you mean {quoted(near)}?" if near and not folder.exists() else ""
        raise SaeGraphsError(
            f"no SAEs are known for {name}; name a folder or a sae-lens release with --saes "
            f"(`sae-graphs models` lists them){hint}"
        )
    return Wanted(name, source, default.release, pattern or default.pattern)
