"""The stages that build the bundled model, each skipped when its result is already there.

Finished stages are noted, with the recipe they were made by, in `<out>/.progress/`; a run with
another recipe into the same folder is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.errors import SaeGraphsError
from training.demo.plan import Plan
from training.demo.workplace import Workplace, write_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

STAGES = ("tokenizer", "corpus", "model", "saes", "refining", "contexts", "manifest")


def key_matters(place: Workplace, key: str) -> bool:
    """False for a number of the recipe that no stage finished so far has used."""
    for stage, prefix in (("saes", "sae_"), ("refining", "refining_"), ("contexts", "context_")):
        if key.startswith(prefix):
            return place.note(stage) is not None
    return True


def open_workplace(out: Path, plan: Plan) -> Workplace:
    """The workplace in `out`, made if need be.

    Raises SaeGraphsError when `out` holds the progress of another recipe.
    """
    place = Workplace(out, plan)
    recipe = place.progress / "plan.json"
    wanted = json.loads(json.dumps(plan.to_json()))
    if recipe.exists():
        found = json.loads(recipe.read_text(encoding="utf-8"))
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        changed = [key for key in changed if key_matters(place, key)]
        if changed:
            raise SaeGraphsError(
                f"{place.progress} holds the progress of another recipe "
                f"(different: {', '.join(changed)}); choose another --out or delete that folder"
            )
    write_json(recipe, wanted)
    return place


def train(
    out: Path, plan: Plan, progress: Progress, *, until: str = STAGES[-1]
) -> dict[str, dict[str, Any]]:
    """Runs every stage up to `until` that is not finished yet; returns the stages' notes."""
    if until not in STAGES:
        raise SaeGraphsError(f"unknown stage {until!r}; expected one of {', '.join(STAGES)}")
    place = open_workplace(out, plan)
    runners: dict[str, Callable[[Workplace, Progress], dict[str, Any]]] = {
        "tokenizer": make_tokenizer,
        "corpus": make_rows,
        "model": make_model,
        "saes": make_saes,
        "refining": refine_saes,
        "contexts": make_contexts,
        "manifest": make_manifest,
    }
    notes: dict[str, dict[str, Any]] = {}
    for stage in STAGES[: STAGES.index(until) + 1]:
        note = place.note(stage)
        if note is None:
            started = time.monotonic()
            note = runners[stage](place, progress)
            note.setdefault("seconds", round(time.monotonic() - started, 1))
            place.finish(stage, note)
        notes[stage] = note
    return notes


def make_tokenizer(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains and saves the tokenizer."""
    from training.demo.tokenizer import save_tokenizer, train_tokenizer

    task = progress.add_task("tokenizer", total=1)
    tokenizer = train_tokenizer(place.plan)
    save_tokenizer(tokenizer, place.model, place.plan.context)
    progress.update(task, completed=1)
    return {"vocab_size": tokenizer.get_vocab_size()}


def make_rows(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Writes the corpus and keeps it as rows of tokens."""
    from training.demo.tokenizer import load_tokenizer
    from training.demo.tokens import cached_token_rows

    plan = place.plan
    rows = plan.steps * plan.batch_rows
    task = progress.add_task("corpus", total=rows)
    cached_token_rows(
        place.rows_file,
        load_tokenizer(place.model),
        plan.seed,
        "model",
        context=plan.context,
        rows=rows,
        advance=lambda count: progress.advance(task, count),
    )
    progress.update(task, completed=rows)
    return {"rows": rows, "tokens": rows * plan.context}


def make_model(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains and saves the language model."""
    import numpy as np

    from training.demo.model import save_model, train_model

    rows = np.load(place.rows_file, mmap_mode="r", allow_pickle=False)
    task = progress.add_task("model", total=place.plan.steps)
    model, report = train_model(
        place.plan, rows, place.checkpoint_file, advance=_shown(progress, task, "model, loss")
    )
    save_model(model, place.model)
    return {
        "steps": report.steps,
        "tokens": report.tokens,
        "seconds": round(report.seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "losses": [[step, round(loss, 4)] for step, loss in report.losses],
    }


def _shown(progress: Progress, task: TaskID, title: str) -> Callable[[int, float], None]:
    def advance(step: int, loss: float) -> None:
        progress.update(task, completed=step, description=f"{title} {loss:.3f}")

    return advance


def make_saes(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains and saves the SAEs, all at once."""
    from training.demo.sae_training import train_saes

    return train_saes(place, progress)


def refine_saes(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Trains the SAEs of the early layers once more, from where they stand."""
    from training.demo.sae_training import refine

    return refine(place, progress)


def make_contexts(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Stores the top activating contexts beside each SAE."""
    from training.demo.shipping import store_contexts

    return store_contexts(place, progress)


def make_manifest(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Writes the manifest: recipe, measurements, versions, checksums."""
    from training.demo.shipping import write_manifest

    return write_manifest(place, progress)
