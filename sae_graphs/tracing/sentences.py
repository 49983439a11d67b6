"""What was asked of a trace, and what it says, in sentences: for the terminal, pages, notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from sae_graphs.text import joined
from sae_graphs.tracing.drawn import NAMES, corruption_words, ends_words, target_words
from sae_graphs.tracing.handover import Handover
from sae_graphs.tracing.reading import Reading, Site, tokens_of
from sae_graphs.tracing.records import Trace
from sae_graphs.words import NONE, counted, listed, nats, plain, said, share

RESTORED = {
    "state": "the state",
    "mlp": "what MLPs write",
    "attention": "what attention writes",
    "state-mlp-severed": "the state, later MLPs held at their corrupted values,",
    "state-attention-severed": "the state, later attention held at its corrupted values,",
}
SITE_HEAD = ("Restored", "Tokens", "Layers", "Restores", "Log-odds", "Interval", "Strongest at")


def question(trace: Trace) -> str:
    """What was asked, and what was done."""
    text = joined(trace.tokens[at] for at in trace.subject)
    return (
        f"Where does {trace.model} hold what makes it answer {target_words(trace)}? The embeddings "
        f"of {said(text)} were corrupted ({corruption_words(trace)}), and one state at a time was "
        f"restored from the clean run. The answer's probability: {ends_words(trace)}."
    )


def findings(trace: Trace, reading: Reading) -> Iterator[str]:
    """What it says: the handover, then the sites, those of the state first."""
    if reading.problem is not None:
        yield f"No site is claimed: {reading.problem}."
        return
    if not reading.sites:
        yield (
            "No site stands out: over these noise runs, no cell differs from the corrupted run "
            "more than chance allows among so many."
        )
        return
    told = handover_words(trace, reading)
    if told:
        yield told
    for site in sorted(reading.sites, key=_order):
        yield site_words(trace, site)


def _order(site: Site) -> tuple[int, bool, int]:
    return list(RESTORED).index(site.sweep), site.is_harmful, site.layers[0]


def in_short(reading: Reading) -> str:
    """What a trace says in a few words, for a card."""
    if reading.problem is not None:
        return "no site is claimed"
    count = len(reading.sites)
    told = f"{counted(count, 'site')}" if count else "no site stands out"
    if reading.handover is not None:
        told += f" · handover in block {reading.handover.block}"
    return told


def site_words(trace: Trace, site: Site) -> str:
    """One site in a sentence."""
    kind = {"subject": "Early site", "read": "Late site", "other": "Site"}[site.role]
    if site.sweep != "state":
        kind = "Site"
    does = "takes away" if site.is_harmful else "brings back"
    kind = "A restoration that harms" if site.is_harmful else kind
    most = f"{share(abs(site.share))} of what was lost"
    return (
        f"{kind}: restoring {RESTORED[site.sweep]} at {site_tokens(trace, site)}, "
        f"{layers_words(site)}, {does} up to {most} ({nats(site.effect)} nats, "
        f"{interval_words(site)})."
    )


def site_tokens(trace: Trace, site: Site) -> str:
    """Which tokens, as text; a star where they were corrupted."""
    text = joined(trace.tokens[at] for at in tokens_of(site))
    told = said(text)
    if any(at in trace.subject for at in tokens_of(site)):
        told += " *"
    return told + (" (read)" if trace.read in tokens_of(site) else "")


def layers_words(site: Site) -> str:
    """`layer 3`, `layers 0 to 13`."""
    first, last = site.layers
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def interval_words(site: Site) -> str:
    """The interval of what it restores, which holds for all cells at once."""
    return f"{plain(site.low)} to {plain(site.high)}"


def handover_words(trace: Trace, reading: Reading) -> str | None:
    """Where what is known of the subject goes over to the read token; None where it is not told."""
    found, source = reading.handover, reading.source
    if found is None or source is None:
        early, late = (reading.first("state", role) for role in ("subject", "read"))
        if early and late:
            return "No handover is claimed: the two rows do not cross for good."
        return None
    names = (said(trace.tokens[source]), said(trace.tokens[trace.read]))
    told = [
        f"Handover: {names[1]} overtakes {names[0]} in block {found.block} (layer "
        f"{layer_words(found, 'crosses')})."
    ]
    if found.leaves is not None:
        by = layer_words(found, "leaves")
        told.append(f"{names[0]} has lost half of what it brings back by layer {by}.")
    if found.enters is not None:
        told.append(f"{names[1]} has half of its own from layer {layer_words(found, 'enters')} on.")
    return " ".join(told)


def layer_words(found: Handover, name: str) -> str:
    """A layer with its 95 % interval: `13.4, 13.1 to 13.8`."""
    layer = getattr(found, name)
    if layer is None:
        return NONE
    told = f"{layer:.1f}"
    ends = found.interval(name)
    return told if ends is None else f"{told}, {ends[0]:.1f} to {ends[1]:.1f}"


def site_row(trace: Trace, site: Site) -> tuple[str, ...]:
    """One site as the cells of `SITE_HEAD`."""
    first, last = site.layers
    at, layer = site.at
    return (
        NAMES[site.sweep],
        site_tokens(trace, site),
        str(first) if first == last else f"{first} to {last}",
        share(site.share),
        nats(site.effect),
        interval_words(site),
        f"{said(trace.tokens[at])}, layer {layer}",
    )


def sweeps_words(trace: Trace) -> str:
    """What was restored: `the state, what MLPs write and what attention writes`."""
    return listed([RESTORED[sweep.name].rstrip(",") for sweep in trace.sweeps])
