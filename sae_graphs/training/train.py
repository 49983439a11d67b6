"""`train_saes`: from a model and some text to SAEs that `load` takes, resumable at any moment.

What each stage leaves stays in `<out>/.progress`; a run that is stopped goes on from there, and
two that are started at once share the work: files of activations and SAEs are made by whichever
comes first.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import locked, write_atomically
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.memory import format_size
from sae_graphs.training.activations import (
    PATIENCE,
    ROWS_AT_ONCE,
    make_shards,
    missing_shards,
    n_shards,
    streams_of,
)
from sae_graphs.training.measure import measure
from sae_graphs.training.plan import SHARD_ROWS, Plan, require_same
from sae_graphs.training.rows import Rows, make_rows, read_rows, rows_file, save_rows
from sae_graphs.training.store import open_store, places_in, shard_file
from sae_graphs.training.texts import Texts
from sae_graphs.training.trainer import Trainer, save_sae, train_sae

MARGIN = 2**28  # bytes of the disk that are left free
TRIED_STEPS = 2  # of a training, to know how long a step takes
EVALUATION = "evaluation.json"

Report = Callable[[int, int], None]
Bar = Callable[[str, str], AbstractContextManager[Report]]


@contextmanager
def no_bar(what: str, unit: str) -> Iterator[Report]:
    """Where nobody watches."""
    yield lambda done, total: None


class Told(NamedTuple):
    """Who hears of a training: `say` its lines, `bar` how far a stage is (`console.progress`)."""

    say: Callable[[str], None] = lambda line: None
    bar: Bar = no_bar


@dataclass(frozen=True)
class Place:
    """The folder of a training: SAEs in `saes`, one sub-folder each, and what stages leave."""

    out: Path

    @property
    def saes(self) -> Path:
        """One sub-folder for each SAE that is finished."""
        return self.out / "saes"

    @property
    def progress(self) -> Path:
        """Rows, activations and checkpoints; not needed once all is done."""
        return self.out / ".progress"

    @property
    def activations(self) -> Path:
        """The files of activations."""
        return self.progress / "activations"

    def checkpoint(self, hook_name: str) -> Path:
        """The state of an unfinished SAE."""
        return self.progress / "checkpoints" / f"{hook_name}.safetensors"


def train_saes(
    model: LanguageModel,
    plan: Plan,
    texts: Texts,
    out: str | Path,
    *,
    told: Told | None = None,
) -> dict[str, Any]:
    """Train one SAE at each place of a plan, and measure them; returns the evaluation.

    Nothing long is begun before it has been said how long it takes, and how much of the disk.
    Raises `SaeGraphsError` where the model has no such place, the text is too short, the disk too
    small, or `out` holds a training of another kind.
    """
    told, place = told or Told(), Place(Path(out))
    check_places(model, plan)
    with torch.enable_grad():
        rows = rows_of(model, plan, texts, place, told)
        told.say(foretold(model, plan, rows, place))
        facts = {"rows": len(rows.ids), **model_facts(model)}
        require_same(place.progress / "activations.json", facts, "activations")
        require_places(place.activations, plan)
        with told.bar("activations", "rows") as report:
            make_shards(model, rows, plan.points, place.activations, report)
        train_missing(model, plan, rows, place, told)
    return evaluate(model, plan, rows, place, told)


def check_places(model: LanguageModel, plan: Plan) -> None:
    """Raise `SaeGraphsError` where the model has no such block."""
    last = model.end.block
    wrong = [point.block for point in plan.points if point.block > last]
    if wrong:
        raise SaeGraphsError(
            f"{model.name} has no block {wrong[0]}; its blocks are 0 to {last}: give other --layers"
        )


def require_places(folder: Path, plan: Plan) -> None:
    """Raise `SaeGraphsError` where activations were kept without one of a plan's places."""
    first = shard_file(folder, 0)
    lacking = [name for name in plan.hook_names if name not in (places_in(first) or {name})]
    if lacking:
        raise SaeGraphsError(
            f"the activations in {folder} were kept without {lacking[0]}; give the --layers that "
            "they hold, or another --out"
        )


def model_facts(model: LanguageModel) -> dict[str, Any]:
    """What tells a model from others: its shape, and a sum over each tenth of its weights."""
    weights = [float(at.detach().double().sum()) for at in list(model.model.parameters())[::10]]
    return {"d_model": int(model.model.cfg.d_model), "weights": [f"{at:.6g}" for at in weights]}


def device_of(model: LanguageModel) -> str:
    """Where the model's weights are: its SAEs are trained there, too."""
    return str(next(model.model.parameters()).device)


def rows_of(model: LanguageModel, plan: Plan, texts: Texts, place: Place, told: Told) -> Rows:
    """The rows of an earlier run, or new ones."""
    bos = model.tokenizer.bos_token_id if model.prepend_bos else None
    names = ("tokens", "held_out", "context", "seed")
    facts = {name: getattr(plan, name) for name in names} | {"bos": bos, "text": texts.facts()}
    require_same(place.progress / "rows.json", facts, "rows of text")
    rows = read_rows(rows_file(place.progress))
    if rows is not None:
        return rows
    wanted = plan.tokens + plan.held_out
    with told.bar("reading text", "tokens") as report:
        rows = make_rows(
            texts.pairs(), model.tokenizer, plan, bos=bos, told=lambda n: report(n, max(n, wanted))
        )
    save_rows(rows, rows_file(place.progress))
    return rows


# -- what it takes ---------------------------------------------------------------------------------


def foretold(model: LanguageModel, plan: Plan, rows: Rows, place: Place) -> str:
    """What is left to do, how long it takes and what of the disk, in a line.

    Raises `SaeGraphsError` where the disk is too small.
    """
    count = n_shards(rows)
    left = len(missing_shards(place.activations, count))
    width = int(model.model.cfg.d_model)
    needed = plan.stored_bytes(width) * left // count
    place.out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.out).free
    if needed + MARGIN > free:
        raise SaeGraphsError(
            f"{format_size(needed)} of activations do not fit on the disk of {place.out}, which "
            f"has {format_size(free)} free; give fewer --tokens or --layers, or another --out"
        )
    parts = []
    if left:
        seconds = left * SHARD_ROWS / ROWS_AT_ONCE * _seconds_of_a_batch(model, plan, rows)
        parts.append(f"activations: {format_size(needed)} of the disk, {_time(seconds)}")
    todo = [name for name in plan.hook_names if not (place.saes / name).is_dir()]
    if todo:
        seconds = _seconds_of_a_step(plan, width, device_of(model)) * plan.steps * len(todo)
        parts.append(f"{len(todo)} SAEs of {plan.features:,} features: {_time(seconds)}")
    return "; ".join(parts) or "all SAEs are trained"


def _seconds_of_a_batch(model: LanguageModel, plan: Plan, rows: Rows) -> float:
    streams_of(model, rows.ids[:1], plan.points)
    started = time.monotonic()
    streams_of(model, rows.ids[:ROWS_AT_ONCE], plan.points)
    return time.monotonic() - started


def _seconds_of_a_step(plan: Plan, width: int, device: str) -> float:
    """By a step's arithmetic, done on numbers that mean nothing."""
    x = torch.ones(plan.batch, width, device=device)
    weights = torch.ones(width, plan.features, device=device)
    for number in range(1 + TRIED_STEPS):
        if number == 1:  # the first is slower
            started = time.monotonic()
        (x @ weights).topk(plan.active)  # encoding
        (x.T @ (x @ weights).relu()).sum().item()  # its gradient, and as much as the rest takes
    return (time.monotonic() - started) / TRIED_STEPS


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


# -- training and measuring ------------------------------------------------------------------------


def train_missing(model: LanguageModel, plan: Plan, rows: Rows, place: Place, told: Told) -> None:
    """Train the SAEs that are not there yet, and that no other process is at."""
    from filelock import Timeout

    facts = {name: value for name, value in plan.to_json().items() if name != "hook_names"}
    require_same(place.progress / "saes.json", facts, "SAEs")
    (place.progress / "checkpoints").mkdir(parents=True, exist_ok=True)
    while todo := [name for name in plan.hook_names if not (place.saes / name).is_dir()]:
        made = 0
        for name in todo:
            lock = place.checkpoint(name).with_suffix(".lock")
            try:
                with locked(lock, wait=False):
                    if not (place.saes / name).is_dir():
                        _train(model, plan, rows, place, name, told)
                        made += 1
            except Timeout:
                continue
        if not made:
            time.sleep(PATIENCE)


def _train(
    model: LanguageModel, plan: Plan, rows: Rows, place: Place, name: str, told: Told
) -> None:
    first = rows.held_out // SHARD_ROWS
    numbers = range(first, n_shards(rows))
    store = open_store(place.activations, name, numbers, plan.outlier)
    checkpoint = place.checkpoint(name)
    with told.bar(name, "steps") as report:
        trainer: Trainer = train_sae(
            store,
            plan,
            checkpoint,
            device=device_of(model),
            told=lambda done, total, fvu: report(done, total),
        )
    about = {
        "model_name": model.name,
        "prepend_bos": model.prepend_bos,
        "context_size": plan.context,
        "outlier_norm": store.limit,
        "model_from_pretrained_kwargs": {},
    }
    save_sae(trainer, place.saes / name, about)
    checkpoint.unlink(missing_ok=True)


def evaluate(
    model: LanguageModel, plan: Plan, rows: Rows, place: Place, told: Told | None = None
) -> dict[str, Any]:
    """Measure the SAEs in `saes` on the rows that are held out; written to `evaluation.json`."""
    with locked(place.progress / "evaluation.lock", wait=True):
        return _measured(place, plan) or _evaluated(model, plan, rows, place, told or Told())


def _measured(place: Place, plan: Plan) -> dict[str, Any] | None:
    """The evaluation of just these SAEs that another process, or an earlier run, has written."""
    file = place.out / EVALUATION
    if not file.is_file():
        return None
    written = file.stat().st_mtime_ns
    if any(at.stat().st_mtime_ns > written for at in place.saes.rglob("*") if at.is_file()):
        return None
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    names = {path.name for path in place.saes.iterdir() if path.is_dir()}
    same = {layer["hook_name"] for layer in held["layers"]} == names
    return held if same and held["plan"] == plan.to_json() else None


def _evaluated(
    model: LanguageModel, plan: Plan, rows: Rows, place: Place, told: Told
) -> dict[str, Any]:
    from sae_graphs.pretrained.find_saes import load_stack

    stack = load_stack(place.saes)
    with told.bar("measuring", "rows") as report:
        found = measure(model, stack.layers, rows, told=report)
    found = {"model": model.name, "plan": plan.to_json(), **found}
    data = json.dumps(found, indent=1) + "\n"
    write_atomically(place.out / EVALUATION, data.encode("utf-8"))
    return found
