"""`sae-graphs trace`: a prompt with its subject corrupted, and every state restored in turn.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    Model,
    Out,
    Prompt,
    Source,
    basics,
    compute,
    formats_of,
    measured,
    output,
    some_text,
)
from sae_graphs.errors import SaeGraphsError, quoted

if TYPE_CHECKING:
    from sae_graphs.cli.tracing import Beside


class CorruptionOption(StrEnum):
    """What becomes of the subject's embeddings."""

    noise = "noise"
    interchange = "interchange"
    nearest = "nearest"
    blend = "blend"
    norm = "norm"


class MeasureOption(StrEnum):
    """What is drawn."""

    probability = "probability"
    normalised = "normalised"
    log = "log"
    log_odds = "log-odds"
    kl = "kl"
    share = "share"


ALONE = ("state",)  # what is restored in each of many prompts, unless more is asked for


def trace(
    prompt: Prompt = None,
    subject: Annotated[
        str | None,
        basics(
            metavar="<text>",
            help="The part of the prompt that is corrupted.",
            show_default="with `--other`, all that differs",
        ),
    ] = None,
    cases: Annotated[
        str | None,
        basics(
            metavar="FILE",
            help="Many prompts: CSV or JSONL with prompt, subject, category, target; `demo`, "
            "`smollm2` and `pairs` are bundled. Averages by category.",
            show_default=False,
        ),
    ] = None,
    model: Model = "demo",
    target: Annotated[
        list[str] | None,
        measured(
            metavar="<token>",
            help="The answer, e.g. ' Paris'; repeatable for a group of tokens.",
            show_default="the likeliest",
        ),
    ] = None,
    noise: Annotated[
        str,
        measured(
            "--noise",
            metavar="<size>",
            help="Standard deviation: `0.5`, `3s` in those of the embeddings, or `auto`: the "
            "answer keeps a tenth of its probability. Several, `1s,3s`, stand side by side; with "
            "`--cases`, how far they move what the first shows. For `blend` the share of the way, "
            "for `norm` the factor.",
        ),
    ] = "auto",
    noise_runs: Annotated[int, measured(help="Draws of the noise, the same for each cell.")] = 10,
    sweeps: Annotated[
        str | None,
        measured(
            help="What is restored: some of state, mlp, attention, state-mlp-severed, "
            "state-attention-severed.",
            show_default="state,mlp,attention; state for `--cases`",
        ),
    ] = None,
    window: Annotated[
        int | None,
        measured(
            help="Blocks whose MLP or attention outputs are restored at once.",
            show_default="10 of 48",
        ),
    ] = None,
    corruption: Annotated[
        CorruptionOption,
        measured(
            "--corruption",
            metavar="<kind>",
            help="`noise`; `interchange` with another prompt's embeddings; the `nearest` token's; "
            "a `blend` towards it; another `norm`.",
        ),
    ] = CorruptionOption.noise,
    other: Annotated[
        str | None,
        measured(
            metavar="<text>",
            help="The other prompt of an interchange, of as many tokens.",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[int, measured(help="For `nearest` and `blend`: the k-th nearest token.")] = 1,
    graph: Annotated[
        Path | None,
        output(
            "--graph",
            help="Folder of this prompt's answer graph, to be laid over the trace: does where "
            "restoring helps agree with where its features stand? The prompt may be left out.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        MeasureOption,
        output(
            "--measure",
            metavar="<name>",
            help="What is drawn: `probability`, `normalised` (0 corrupted, 1 clean), `log`, "
            "`log-odds`, `share` (of these), `kl`. What is claimed is claimed of log-odds.",
        ),
    ] = MeasureOption.probability,
    out_folder: Out = None,
    formats: Annotated[
        str, output(help="What to write beside trace.json: png, svg, pdf, html, md, json.")
    ] = "png,svg,html",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: Annotated[
        bool | None,
        compute(
            "--prepend-bos/--no-prepend-bos",
            help="BOS first.",
            show_default="as the tokenizer does; the bundled model: yes",
        ),
    ] = None,
    seed: Annotated[int, compute(help="Of the noise, and of all intervals.")] = 0,
) -> None:
    """Find where a model holds an answer: corrupt the subject, restore one state at a time.

    Example: `sae-graphs trace "The Eiffel Tower is in the city of" --subject "Eiffel Tower"`

    A true fact beside another: `sae-graphs trace "..." --corruption interchange --other "..."`

    Beside its answer graph: `sae-graphs trace --graph outputs/needle --subject Space`

    Many prompts, averages by category: `sae-graphs trace --cases demo`
    """
    from sae_graphs.tracing.settings import TraceSettings
    from sae_graphs.words import said

    kinds = formats_of(formats, ("png", "svg", "pdf", "html", "md", "json"))
    sizes = _sizes(noise)
    names = _sweeps(sweeps) or (ALONE if cases else ("state", "mlp", "attention"))
    if cases is not None and "state" not in names:
        names = ("state", *names)  # where it hands over is what prompts are compared by
    settings = [
        TraceSettings(
            sweeps=names,  # type: ignore[arg-type]  # checked by the settings
            corruption=corruption.value,
            strength=size,
            noise_runs=noise_runs,
            seed=seed,
            window=window,
            other=other,
            rank=rank,
        )
        for size in sizes
    ]
    for each in settings:
        _check_changes(each.corruption, each.strength)
    source = Source(model, None, device, dtype, memory)
    if cases is not None:
        _check_alone(prompt, subject, target, other, graph)
        from sae_graphs.cli.tracing_cases import trace_many

        trace_many(cases, settings, source, out_folder, kinds, prepend_bos)
        return
    beside = None if graph is None else _beside(graph, prompt, names)
    text = some_text(prompt if beside is None else beside.graph.prompt)
    if subject is None and other is None:
        raise SaeGraphsError(
            "no subject; give the part of the prompt that is corrupted, such as --subject "
            '"Eiffel Tower"'
        )
    if subject and subject.isascii() and subject.strip().lower() not in text.lower():
        raise SaeGraphsError(
            f"the subject {said(subject)} is not in the prompt {said(text)}; give a part of its "
            "text"
        )
    from sae_graphs.cli.tracing import Asked, trace_one

    asked = Asked(text, subject, tuple(target or ()), prepend_bos)
    trace_one(asked, settings, source, out_folder, kinds, measure.value, beside)


def _beside(folder: Path, prompt: str | None, sweeps: tuple[str, ...]) -> Beside:
    """The answer graph of a run's folder; raises where it cannot be laid over such a trace."""
    from sae_graphs.cli.tracing import Beside
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.runs import holds_effects, run_folder
    from sae_graphs.tracing.overlay import check_answers
    from sae_graphs.words import said

    graph, held = CausalGraph.load(folder), run_folder(folder)
    check_answers(graph)
    if prompt is not None and prompt != graph.prompt:
        raise SaeGraphsError(
            f"the graph in {folder} is of {said(graph.prompt)}; leave out the prompt, or give that"
        )
    if "state" not in sweeps:
        raise SaeGraphsError("--graph is laid over the state; give it among the --sweeps")
    return Beside(graph, held if holds_effects(held) else None)


def _sizes(noise: str) -> tuple[str, ...]:
    """The strengths that were given, the first of which is the trace's own."""
    found = tuple(dict.fromkeys(part.strip() for part in noise.split(",") if part.strip()))
    if not found:
        raise SaeGraphsError(f"noise {noise!r:.40}: expected auto, 3s or 0.5, or several of them")
    return found


def _sweeps(sweeps: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (sweeps or "").split(",") if part.strip())


def _check_changes(corruption: str, strength: str) -> None:
    """Raises where this strength leaves all as it is, before anything is loaded."""
    if strength == "auto":
        return
    number = float(strength.rstrip("s"))
    none = {"noise": 0.0, "blend": 0.0, "norm": 1.0}.get(corruption)
    if number == none:
        more = {"noise": "3s, or auto", "blend": "0.5", "norm": "0.1"}[corruption]
        raise SaeGraphsError(
            f"{corruption} of {strength} changes nothing, so nothing can be restored; give more, "
            f"such as {more}"
        )


def _check_alone(
    prompt: str | None,
    subject: str | None,
    target: list[str] | None,
    other: str | None,
    graph: Path | None,
) -> None:
    given = {
        "a prompt": prompt,
        "--subject": subject,
        "--target": target,
        "--other": other,
        "--graph": graph,
    }
    unfit = [name for name, value in given.items() if value]
    if unfit:
        raise SaeGraphsError(
            f"--cases has prompts, subjects and answers of its own, and {quoted(unfit)} is for one "
            "prompt; leave out one of the two"
        )
