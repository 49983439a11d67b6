"""An atlas, start to end: this file is the package's table of contents.

1. What is asked: prompts. 2. What all rows have in common: the manifest. 3. Each prompt that the
folder does not hold yet, measured: its rows. 4. Parts of rows, written as they come. 5. One part of
all, in order, and the file with views.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sae_graphs.atlas.measure import Here, Measuring
from sae_graphs.atlas.plan import Plan, categories_of
from sae_graphs.atlas.prompts import Asked, asked_of
from sae_graphs.atlas.rows import Rows
from sae_graphs.atlas.store import WHOLE, Manifest, Store, check_folder, writing
from sae_graphs.bars import Progress, heard, with_bar
from sae_graphs.effects.answer.table import ALWAYS
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.keywords import checked
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.text import visible
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.answer.subject import check_for_answer
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.words import counted

log = logging.getLogger(__name__)
Settings = TypeVar("Settings", TraceSettings, ValidationSettings)

SECONDS = 10.0  # of measuring that a part holds
MOST = 256  # prompts of a part
SMALL = 256  # parts, before they are made into one
BESIDE = {  # tables of what is measured beside a graph, and a column that is there if it could be
    "traces": ("clean", "traced"),
    "verdicts": ("claim", "validated"),
}


class Built(NamedTuple):
    """What a build did: prompts measured now, those that the folder held, and those that failed.

    `failed` are prompts with reasons; `seconds` is what measuring took.
    """

    folder: Path
    measured: int
    known: int
    failed: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def per_minute(self) -> float:
        """Prompts measured a minute."""
        return 60 * self.measured / self.seconds if self.seconds else 0.0


@with_bar("prompts")
@checked
def build_atlas(
    model: InstrumentedModel | str | Path,
    prompts: Iterable[str | Asked | Mapping[str, Any]],
    out: str | Path,
    *,
    settings: GraphSettings | None = None,
    intervention: str | None = None,
    trace: TraceSettings | bool = False,
    validate: ValidationSettings | bool = False,
    loading: Mapping[str, Any] | None = None,
    ray: str | None = None,
    workers: int | None = None,
    progress: Progress | bool | None = None,
) -> Built:
    """Measure the graphs of many prompts into a folder that `Atlas` opens.

    A prompt is a text, or a row: its `prompt`, a `target` where the answer is not the likeliest
    token, and columns that are carried along as categories. `settings` and `intervention` are those
    of `causal_graph`, whose nodes, edges and scores the rows are; where they name no budget, 2,000
    features at tokens of each prompt are measured, whatever the time. A prompt that the folder
    holds is not measured again; what an interrupted or killed build measured is kept, but for the
    prompts in flight. A prompt that fails is listed with the reason.

    With `trace` each prompt is traced as well, its `subject` (a column) corrupted: the sites where
    restoring a state brings the answer back. With `validate` each graph and its strongest paths are
    tested beside controls: their verdicts. True stands for the usual settings of `trace`, and of a
    quick `validate`; or give settings whole.

    With `ray`, "local" or an address such as "ray://host:10001", so many `workers` load the model,
    which is then given by its name or folder, with options of `load` in `loading`. Raises
    `SaeGraphsError` where the folder holds other settings, or not one prompt could be measured.
    """
    asked, folder = asked_of(prompts), Path(out)
    check_folder(folder)
    plan = plan_of(settings or GraphSettings(), intervention, trace, validate)
    categories = categories_of(asked, plan)
    with measuring(model, plan, loading, ray, workers) as found:
        manifest = Manifest(found.facts(), categories)
        with writing(folder, manifest) as store:
            built = _build(store, found, asked, heard(progress))
            store.compact()
            store.write_database()
    if built.failed and not built.measured and not built.known:
        raise SaeGraphsError(
            f"not one of {len(built.failed)} prompts could be measured; the first: "
            f"{built.failed[0][1]}"
        )
    return built


def plan_of(
    settings: GraphSettings,
    intervention: str | None = None,
    trace: TraceSettings | bool = False,
    validate: ValidationSettings | bool = False,
) -> Plan:
    """A plan whose rows do not depend on how fast a machine is."""
    if settings.select == "answer" and settings.budget is None:
        settings = replace(settings, budget=ALWAYS)
    tracing = _chosen("trace", trace, TraceSettings())
    validation = _chosen("validate", validate, ValidationSettings(quick=True))
    if validation is not None and settings.select == "answer":
        check_for_answer(validation, None)
    return Plan(settings, intervention, tracing, validation)


def _chosen(name: str, given: Any, usual: Settings) -> Settings | None:
    """The settings that are given, the usual ones for True, None for False."""
    if isinstance(given, bool):
        return usual if given else None
    if not isinstance(given, type(usual)):
        kind = type(usual).__name__
        raise SaeGraphsError(f"{name} is {given!r:.60}; expected True, False or {kind}")
    return given


# -- the steps -------------------------------------------------------------------------------------


def _build(store: Store, found: Measuring, asked: Sequence[Asked], told: Progress | None) -> Built:
    """Measure what is not there yet, part by part; what is measured is kept whatever happens.

    `told` hears of the prompts that are to be measured, so that its estimate is of measuring.
    """
    done, wanted = store.done(), _distinct(asked)
    _say_kept(done, wanted)
    todo = [each for name, each in wanted.items() if name not in done]
    known, waiting, failed = len(wanted) - len(todo), list[Rows](), list[tuple[str, str]]()
    started = since = time.monotonic()
    ended, missing = 0, {table: list[str]() for table in BESIDE}
    if told is not None:
        told(0, len(todo))
    try:
        for rows in found.rows(todo):
            store.note(rows)
            waiting.append(rows)
            ended += 1
            for table, (column, _) in BESIDE.items():
                first = next(iter(rows.tables.get(table, ())), None)
                if first is not None and first.get(column) is None:
                    missing[table].append(first["reason"])
            failed += [(row["prompt"], row["reason"]) for row in rows.tables["failures"]]
            if told is not None:
                told(ended, len(todo))
            if time.monotonic() - since >= SECONDS or len(waiting) >= MOST:
                store.add(waiting)
                waiting, since = [], time.monotonic()
                if sum(not part.name.startswith(WHOLE) for part in store.parts()) >= SMALL:
                    store.compact()
    finally:
        if waiting:
            store.add(waiting)
    seconds = time.monotonic() - started
    _say_missing(missing, ended - len(failed))
    return Built(store.folder, ended - len(failed), known, tuple(failed), seconds)


def _distinct(asked: Sequence[Asked]) -> dict[str, Asked]:
    """Each prompt once, by its id, as it comes first."""
    found: dict[str, Asked] = {}
    others = 0
    for each in asked:
        others += found.setdefault(each.id, each).categories != each.categories
    if others:
        log.warning(
            "%s given twice with different categories; the first ones are kept",
            counted(others, "prompt"),
        )
    return found


def _say_kept(done: Mapping[str, Mapping[str, str | None]], wanted: Mapping[str, Asked]) -> None:
    """Warn of prompts that are measured, and come now with other categories."""
    others = sum(
        any(done[name].get(column) != value for column, value in each.categories.items())
        for name, each in wanted.items()
        if name in done
    )
    if others:
        log.warning(
            "%s measured before with other categories, which are kept; for the new ones build into "
            "another folder",
            counted(others, "prompt"),
        )


def _say_missing(missing: Mapping[str, Sequence[str]], measured: int) -> None:
    """Warn of prompts that have a graph, but not what else was asked for."""
    for table, (_, done) in BESIDE.items():
        if reasons := missing[table]:
            log.warning(
                "%d of %s could not be %s; the first: %s",
                *(len(reasons), counted(measured, "prompt"), done, visible(reasons[0], space=" ")),
            )


def measuring(
    model: InstrumentedModel | str | Path,
    plan: Plan,
    loading: Mapping[str, Any] | None,
    ray: str | None,
    workers: int | None,
) -> Any:
    """Who measures, as a context: workers end with it."""
    named_model = isinstance(model, str | Path)
    if loading and not named_model:
        raise SaeGraphsError("loading is for a model by its name or folder; this one is loaded")
    if ray is None:
        if workers is not None:
            raise SaeGraphsError(f"workers is {workers!r:.20}, which is for ray; give ray='local'")
        if isinstance(model, str | Path):
            from sae_graphs.late import named

            model = named("load")(model, **(loading or {}))
        return Here(model, plan)
    if not named_model:
        raise SaeGraphsError(
            "workers load the model themselves; give its name or folder beside ray, not the model"
        )
    from sae_graphs.atlas.cluster import Cluster

    given = {**(loading or {}), "model": str(model)}
    return Cluster(ray, given, plan, workers)
