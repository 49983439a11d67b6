"""Many prompts as one page: what was left, averages by category, confounds. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawn

from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    Part,
    number,
    table,
    text,
)
from sae_graphs.render.document.plot import with_figures
from sae_graphs.tracing.confounds import COVARIATES, Confounds, Estimate, confounds
from sae_graphs.tracing.drawn import NAMES
from sae_graphs.tracing.handover import NAMES as LAYERS
from sae_graphs.tracing.last_token_plots import attention_maps, first_token_map, motion
from sae_graphs.tracing.last_token_report import (
    MEANINGS,
    first_token_table,
    token_table,
    told_of_tokens,
)
from sae_graphs.tracing.many import Averaged, Traces, averaged, crossings, last_tokens
from sae_graphs.tracing.many_plots import mean_rows, transitions
from sae_graphs.tracing.sentences import layer_words
from sae_graphs.tracing.stability import Stability, stability
from sae_graphs.words import NONE, amount, counted, listed, p_value, probability, said, share

STEM = "traces"
PAGE = "traces.html"
HEAD = ("Category", "Prompts", "Leaves", "Overtakes", "Enters", "Starts", "Ends")


def many_files(traces: Traces, formats: Collection[str]) -> dict[str, bytes]:
    """The page, its Markdown and the figures, by name; the same traces give the same bytes."""
    if not set(formats) - {"json"}:
        return {}
    figures = {f"{STEM}-transitions": transitions(traces)} | _of_tokens(traces)
    for sweep in traces.sweeps:
        figures[STEM if sweep == "state" else f"{STEM}-{sweep}"] = mean_rows(traces, sweep)
    drawn = {name: it for name, it in figures.items() if it is not None}
    return with_figures(STEM, formats, drawn, _cover(traces), lambda svgs: _blocks(traces, svgs))


def _of_tokens(traces: Traces) -> dict[str, Drawn | None]:
    tokens, first = last_tokens(traces), traces.first_token
    return {
        f"{STEM}-attention": attention_maps(tokens) if tokens else None,
        f"{STEM}-motion": motion(tokens) if tokens else None,
        f"{STEM}-first-token": first_token_map(first) if first and first.shares else None,
    }


def _cover(traces: Traces) -> Cover:
    count = len(traces.traced) + len(traces.left_out)
    about = f"model {traces.model} · {len(traces.traced)} of {counted(count, 'case')} traced"
    name = str(traces.settings.get("cases", counted(count, "prompt")))
    return Cover("Causal traces of the prompts of", "Traces", name, about)


def _blocks(traces: Traces, drawn: Mapping[str, str]) -> Iterator[Block]:
    yield Paragraph(
        "At which layers does what is known of the corrupted token go over to the token that is "
        f"read, and does that hang on the kind of prompt? {counted(len(traces.traced), 'prompt')} "
        f"passed the filters and {'was' if len(traces.traced) == 1 else 'were'} traced.",
        "lead",
    )
    found = confounds(traces)
    for sentence in findings(traces, found):
        yield Paragraph(sentence, "verdict")
    yield from transition_table(traces)
    for name, svg in drawn.items():
        if name not in _LATER:
            yield _figure(name, svg)
    moved = list(stability(traces))
    if moved:
        yield Heading("Other strengths", 2)
        yield from stability_table(moved)
    yield from _token_blocks(traces, drawn)
    if found is not None:
        yield Heading("Confounds", 2)
        yield from _confound_blocks(found)
    yield Heading("More")
    yield Fold("What was left out, and why", tuple(_filters(traces)))
    yield Fold("Every prompt that was traced", tuple(_every(traces)))
    yield Fold("What the words mean", (_meanings(),))
    yield Fold("How it was made", (_made(traces),))


_CAPTIONS = {
    f"{STEM}-transitions": "Where each category hands over; intervals are bootstraps over prompts.",
    STEM: "States: bands are 95 % bootstrap intervals over prompts; the handover is shaded.",
}
_LATER = {
    f"{STEM}-attention": "Attention of the read token in the clean run, means over prompts.",
    f"{STEM}-motion": "The read token in the clean run; bands are 95 % bootstrap intervals over "
    "prompts.",
    f"{STEM}-first-token": "The prompts as one text, without corruption.",
}
_OTHERS = "Bands are 95 % bootstrap intervals over prompts."


def _figure(name: str, svg: str) -> Figure:
    caption = _CAPTIONS.get(name) or _LATER.get(name, _OTHERS)
    return Figure(f"{name}.svg", svg, caption, f"Figure {name}")


def _token_blocks(traces: Traces, drawn: Mapping[str, str]) -> Iterator[Part]:
    """The read token in the clean run: what it looks at, how its state moves."""
    tokens = last_tokens(traces)
    if not tokens and traces.first_token is None:
        return
    yield Heading("The token that is read, undisturbed", 2)
    if tokens:
        for sentence in told_of_tokens(tokens):
            yield Paragraph(sentence)
        yield from token_table(tokens)
    for name, svg in drawn.items():
        if name in _LATER:
            yield _figure(name, svg)
    if traces.first_token is not None:
        yield from first_token_table(traces.first_token)


# -- in words --------------------------------------------------------------------------------------


def findings(traces: Traces, found: Confounds | None) -> Iterator[str]:
    """Which category hands over where, and whether confounds explain it."""
    known = [it for it in _averages(traces) if it.handover is not None]
    if not known:
        yield "No handover is claimed in any category."
        return
    known.sort(key=_crossing)
    told = [
        f"{said(it.category)} at layer {layer_words(it.handover, 'crosses')}"
        for it in known
        if it.handover is not None
    ]
    yield f"The read token overtakes the corrupted one, on average: {listed(told)}."
    if found is None:
        yield "Confounds cannot be told: that takes two categories with three prompts that cross."
        return
    yield _confounds_told(found)


def _confounds_told(found: Confounds) -> str:
    differ = found.p_plain is not None and found.p_plain <= 0.05
    still = found.p_adjusted is not None and found.p_adjusted <= 0.05
    if not differ:
        return (
            f"Categories do not differ in it by more than chance (F test, p "
            f"{p_value(found.p_plain)})."
        )
    words = "They still do" if still else "No difference is left"
    return (
        f"Categories differ in it (F test, p {p_value(found.p_plain)}). {words} once the distance "
        f"to the read token and the clean confidence are taken out (p {p_value(found.p_adjusted)})."
    )


def _crossing(found: Averaged) -> float:
    return np.inf if found.handover is None else found.handover.crosses


def _averages(traces: Traces) -> list[Averaged]:
    if "state" not in traces.sweeps:
        return []
    found = (averaged(traces, name) for name in traces.categories)
    return [it for it in found if it is not None]


def transition_rows(traces: Traces) -> list[tuple[str, ...]]:
    """One row a category, as the cells of `HEAD`."""
    rows = []
    for it in _averages(traces):
        found = it.handover
        layers = (NONE if found is None else layer_words(found, name) for name in LAYERS)
        rows.append((it.category, str(it.n), *layers))
    return rows


def transition_table(traces: Traces) -> list[Part]:
    """The layers at which each category hands over."""
    rows = [[text(name), *map(number, numbers)] for name, *numbers in transition_rows(traces)]
    return table("Layers, with 95 % bootstrap intervals over prompts", HEAD, rows)


# -- tables ----------------------------------------------------------------------------------------


def stability_table(moved: Sequence[Stability]) -> list[Part]:
    """How far crossing layers move with the strength of the noise."""
    head = ("Strength", "Category", "Prompts", "Overtakes", "There", "Later", "Rank correlation")
    rows = [
        [
            text(it.strength),
            text(it.category),
            number(f"{it.n} of {it.of}"),
            number(NONE if it.here is None else f"{it.here:.1f}"),
            number(NONE if it.there is None else f"{it.there:.1f}"),
            number(NONE if it.moved is None else _estimate(it.moved)),
            number(NONE if it.rank is None else _estimate(it.rank)),
        ]
        for it in moved
    ]
    caption = "Crossing layers at other strengths: of prompts that cross at both, means over them"
    return table(caption, head, rows)


def _confound_blocks(found: Confounds) -> Iterator[Part]:
    head = ("Category", "Prompts", "Mean crossing", "Adjusted", "Distance", "Confidence, nats")
    rows = [
        [
            text(it.category),
            number(str(it.n)),
            number(_estimate(it.plain)),
            number(_estimate(it.adjusted)),
            number(amount(it.distance)),
            number(amount(it.confidence)),
        ]
        for it in found.categories
    ]
    yield from table(
        "Crossing layer, the mean over prompts: as it is, and at the mean distance and confidence",
        head,
        rows,
    )
    slopes = [
        [text(name), number(_estimate(slope))]
        for name, slope in zip(COVARIATES, found.slopes, strict=True)
    ]
    yield from table("Layers later for one more", ("Covariate", "Layers"), slopes)
    yield Paragraph(
        f"Distance and confidence explain {share(found.explained)} of the variance of crossing "
        f"layers, with the categories {share(found.explained_all)}. "
        f"{counted(found.left_out, 'prompt')} without a crossing, or of a category with fewer than "
        "three that cross, have no part in it.",
        "note",
    )


def _estimate(found: Estimate) -> str:
    return f"{amount(found.value)} ({amount(found.low)} to {amount(found.high)})"


def _filters(traces: Traces) -> list[Part]:
    counts = {name: traces.reasons(name) for name in traces.categories}
    kinds = list(dict.fromkeys(kind for each in counts.values() for kind in each))
    rows = []
    for name, reasons in counts.items():
        traced = len(traces.of(name))
        cells = [number(str(traced + sum(reasons.values()))), number(str(traced))]
        cells += [number(str(reasons.get(kind, 0))) for kind in kinds]
        rows.append([text(name), *cells])
    parts = table("Cases by category", ("Category", "Cases", "Traced", *kinds), rows)
    left_out = [
        [text(it.case.category), Cell(it.case.prompt, token=True), text(it.reason)]
        for it in traces.left_out
    ]
    return parts + table("Left out", ("Category", "Prompt", "Why"), left_out)


def _every(traces: Traces) -> list[Part]:
    head = ("Category", "Prompt", "Corrupted", "Answer", "Clean", "Corrupted to", "Overtakes")
    own = crossings(traces) if "state" in traces.sweeps else np.full(len(traces.traced), np.nan)
    rows = [
        [
            text(it.case.category),
            Cell(it.case.prompt, token=True),
            Cell(it.case.subject, token=True),
            Cell(it.top, token=True),
            number(probability(it.clean)),
            number(probability(it.corrupted)),
            number(f"{at:.1f}" if np.isfinite(at) else NONE),
        ]
        for it, at in zip(traces.traced, own, strict=True)
    ]
    return table("Prompts", head, rows)


def _meanings() -> Definitions:
    return Definitions(
        "",
        (
            ("log-odds, 0 corrupted, 1 clean", "of the answer against all other tokens: what a "
             "restoration adds, as a share of what the corruption took"),
            ("leaves", "the corrupted token's row falls below half of its best, for good"),
            ("overtakes", "the read token's row exceeds the corrupted token's, for good"),
            ("enters", "the read token's row rises above half of its best, for good"),
            ("starts, ends", "the transition layers: where it rises above a quarter of its best, "
             "and above three quarters"),
            ("filters", "the likeliest next token begins the target; one token is corrupted, "
             "neither the first nor the last"),
            ("adjusted", "least squares of each prompt's own crossing on category, distance and "
             "clean confidence; intervals are bootstraps over prompts within categories"),
            *MEANINGS,
        ),
    )  # fmt: skip


def _made(traces: Traces) -> Definitions:
    entries = [("model", traces.model), ("layers", str(traces.n_layers))]
    entries += [("restored", listed([NAMES.get(name, name) for name in traces.sweeps]) or NONE)]
    entries += [(str(name), str(value)) for name, value in traces.settings.items()]
    return Definitions("", tuple(entries))
