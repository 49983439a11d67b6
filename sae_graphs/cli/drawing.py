"""What `sae-graphs graph` does once its arguments are checked: measure or read, draw, write, print.

Nothing slow is imported before that.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable, warn
from sae_graphs.cli.options import Source
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.effects.settings import GraphSettings
    from sae_graphs.graph.annotations import Annotations
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.interventions import Intervention


class Said(NamedTuple):
    """What the user says of the graph: a file of annotations, and words that take its place."""

    file: Path | None = None
    title: str | None = None
    caption: str | None = None

    def read(self, *folders: Path) -> Annotations:
        """All of it; without a file, what the first of these folders has that has any."""
        from sae_graphs.cli.outputs import kept_annotations
        from sae_graphs.graph.annotations import NO_ANNOTATIONS, load

        if self.file is not None:
            found = load(self.file)
        else:
            found = next(filter(None, map(kept_annotations, folders)), NO_ANNOTATIONS)
        if self.title is not None:
            found = replace(found, title=self.title)
        return found if self.caption is None else replace(found, caption=self.caption)


class Wanted(NamedTuple):
    """What a run is to leave behind."""

    out_folder: Path | None
    formats: tuple[str, ...]
    save_effects: bool
    neuronpedia: bool  # whether to ask what the features mean
    said: Said = Said()


def draw(
    prompt: str,
    settings: GraphSettings,
    source: Source,
    wanted: Wanted,
    intervention: str,
) -> None:
    """Load, measure, draw, write, print."""
    from sae_graphs.cli.outputs import check_keeps_annotations, check_keeps_effects
    from sae_graphs.runs import check_writable, folder_for, writing

    save_effects = wanted.save_effects
    folder = wanted.out_folder or folder_for(
        Path("outputs"),
        prompt,
        source.model,
        source.saes,
        source.sae_pattern,
        save_effects=save_effects,
    )
    check_writable(folder)
    if not save_effects:
        check_keeps_effects(folder)
    check_keeps_annotations(folder, [prompt, source.model, source.saes, source.sae_pattern])
    told_of_another(folder, prompt)
    with writing(folder):
        _measure_and_write(folder, prompt, settings, source, wanted, intervention)


def told_of_another(folder: Path, prompt: str) -> None:
    """Say so where the folder holds the run of another prompt, which this one replaces."""
    from sae_graphs.runs import record_of

    held = (record_of(folder) or {}).get("prompt")
    if isinstance(held, str) and held != prompt:
        warn(f"{folder} holds the run of another prompt, {held!r:.60}: it is replaced")


def _measure_and_write(
    folder: Path,
    prompt: str,
    settings: GraphSettings,
    source: Source,
    wanted: Wanted,
    intervention: str,
) -> None:
    """Load, measure, draw, write, print, while no other run does for this folder."""
    from sae_graphs.cli.outputs import fitting_or_words, write_run
    from sae_graphs.runs import EFFECTS, partial_folder

    annotations = wanted.said.read(folder)
    instrumented = source.load()
    from sae_graphs.effects.build import causal_graph
    from sae_graphs.effects.partial import Partial

    ablated = means_if_asked(instrumented, intervention, always=settings.select == "answer")
    partial = Partial(partial_folder(folder), told=_resumed)
    effects = partial.folder / EFFECTS if wanted.save_effects else None
    started = time.perf_counter()
    with resumable(lambda: parts_kept(partial, "layers are measured")):
        with _measuring(settings) as report:
            result = causal_graph(
                instrumented,
                prompt,
                settings=settings,
                intervention=ablated,
                progress=report,
                resume=partial,
                effects=effects,
            )
        seconds = time.perf_counter() - started
        if wanted.neuronpedia:
            result = _annotated(result, folder)
        fitting_or_words(annotations, result, told=warn)
        with err.status("drawing"):
            written = write_run(
                folder,
                result,
                formats=wanted.formats,
                seconds=seconds,
                saes=source.saes,
                sae_pattern=source.sae_pattern,
                effects=effects,
                annotations=annotations,
            )
    partial.remove()
    from sae_graphs.cli.graph_table import print_graph

    print_graph(out, result, seconds=seconds)
    print_files(out, folder, written)


def _measuring(settings: GraphSettings) -> AbstractContextManager[Any]:
    """The bar of the measuring."""
    if settings.select == "answer":
        return progress("effects on the answer", unit="features at tokens")
    return progress("ablating features")


def means_if_asked(
    model: InstrumentedModel, intervention: str, *, always: bool = False
) -> Intervention | str:
    """`mean` with the reference means, taken under a bar where there are none; else as it is.

    With `always` they are taken in any case: an answer graph asks which features are dense.
    """
    mean = intervention.strip() == "mean"
    if not mean and not always:
        return intervention
    from sae_graphs.features.reference import mean_intervention, references_of

    def foretold(seconds: float) -> None:
        err.print(
            "these SAEs have no reference means yet: they are taken once from English text, in "
            f"about {max(round(seconds), 1):,} s more",
            highlight=False,
            soft_wrap=True,
        )

    with progress("reference means", unit="tokens") as report:
        found = references_of(model, progress=report, foretold=foretold)
    return mean_intervention(model, found) if mean else intervention


def _annotated(graph: CausalGraph, folder: Path) -> CausalGraph:
    """With what Neuronpedia says; the graph is drawn whatever that is, after Ctrl-C, too."""
    from sae_graphs.features.neuronpedia.annotate import annotate, unanswered

    with progress("asking Neuronpedia") as report:
        try:
            return annotate(graph, progress=report, told=warn)
        except SaeGraphsError as problem:  # what the environment says of the service
            warn(str(problem))
            return graph
        except KeyboardInterrupt:
            graph = annotate(graph, ask=False)
            warn(f"stopped asking Neuronpedia; {_without(unanswered(graph), folder)}")
            return graph


def _annotated_again(graph: CausalGraph, folder: Path) -> CausalGraph:
    """With what Neuronpedia said before: drawing again makes no request."""
    from sae_graphs.features.neuronpedia.annotate import annotate, unanswered

    try:
        graph = annotate(graph, ask=False)
    except SaeGraphsError as problem:
        warn(str(problem))
    missing = unanswered(graph)
    if missing:
        err.print(_without(missing, folder), markup=False, highlight=False, soft_wrap=True)
    return graph


def _without(missing: int, folder: Path) -> str:
    return (
        f"drawn without what {missing} features mean; `sae-graphs neuronpedia {folder}` asks for it"
    )


def _resumed(done: int, layers: int) -> None:
    err.print(f"resumed: {done} of {layers} layers were measured before", highlight=False)


def _said_again(said: Said, graph: CausalGraph, *folders: Path) -> Annotations:
    """What is said of a graph that is drawn again: a file's words that fit nothing are a mistake,
    those kept in the first of these folders that has any are not."""
    from sae_graphs.cli.outputs import fitting_or_words
    from sae_graphs.graph.annotations import fitting

    found = said.read(*folders)
    if said.file is not None:
        fitting(found, graph.parts.features, told=warn)
    else:
        fitting_or_words(found, graph, told=warn)
    return found


def draw_again(
    folder: Path,
    chosen: dict[str, Any],
    out_folder: Path | None,
    formats: tuple[str, ...],
    *,
    said: Said = Said(),
    as_it_is: bool = False,
) -> None:
    """Draw saved effects with some settings chosen anew; no model is loaded.

    The graph itself, where it is to be drawn `as_it_is` and no effects were saved.
    """
    from sae_graphs.cli.outputs import write_run
    from sae_graphs.effects.replot import replot
    from sae_graphs.effects.saved import effects_beside
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.runs import check_writable, holds_effects, replot_folder, run_folder

    folder = run_folder(folder)
    started = time.perf_counter()
    saved = CausalGraph.load(folder)
    as_it_is = as_it_is and not effects_beside(folder).is_file()
    result = saved if as_it_is else replot(folder, **chosen)
    seconds = time.perf_counter() - started
    otherwise = "annotated" if any(said) else "again"
    target = out_folder or replot_folder(folder, chosen, otherwise=otherwise)
    own = folder if folder.is_dir() else folder.parent
    annotations = _said_again(said, result, target, own)
    whole = not as_it_is and not {"layers", "pin"} & chosen.keys()
    if not whole and holds_effects(target):  # else the effects are not all this graph's
        raise SaeGraphsError(
            f"{target} holds the effects of all layers and features, which a graph of some would "
            "replace; give another folder with --out"
        )
    check_writable(target)
    effects = effects_beside(folder) if whole else None
    if any(node.page is not None for node in saved.nodes):  # it was asked for
        result = _annotated_again(result, target)
    with err.status("drawing"):
        written = write_run(
            target,
            result,
            formats=formats,
            seconds=seconds,
            effects=effects,
            replotted_from=folder,
            annotations=annotations,
        )
    from sae_graphs.cli.graph_table import print_graph

    print_graph(out, result, seconds=seconds, again=True)
    print_files(out, target, written)
