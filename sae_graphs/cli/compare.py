"""`sae-graphs compare`: exact effects beside their estimates.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sae_graphs.cli.console import out, progress
from sae_graphs.cli.drawing import means_if_asked
from sae_graphs.cli.options import (
    AblateFirst,
    AblateOfGraph,
    Device,
    Dtype,
    InterventionOfEffects,
    Layers,
    Memory,
    Model,
    PrependBos,
    Read,
    Report,
    SaePattern,
    Saes,
    Select,
    SelectOption,
    Source,
    Steps,
    measured,
    output,
    some_text,
)
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.effects.settings import GraphSettings


def compare(
    prompt: Annotated[str, typer.Argument(help="The text to look into.", show_default=False)],
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    select: SelectOption = Select.answer,
    nodes: Annotated[
        int | None,
        measured(help="For `answer`: strongest features at tokens to compare.", show_default="16"),
    ] = None,
    dense: Annotated[
        bool,
        measured("--dense", help="For `answer`: compare the effects of dense features, as well."),
    ] = False,
    ablate: AblateOfGraph = None,
    ablate_first: AblateFirst = False,
    intervention: InterventionOfEffects = "zero",
    read: Read = "-1",
    layers: Layers = None,
    steps: Steps = 10,
    top_k: Annotated[
        int | None,
        measured(
            help="For `effect`: strongest edges of each layer pair to compare.", show_default="8"
        ),
    ] = None,
    style: Annotated[Report, output("--format", help="How to print.")] = Report.table,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: PrependBos = None,
) -> None:
    """Show how far estimates from gradients are from exact effects, and where they are safe.

    Example: `sae-graphs compare "Copyright (C"`
    """
    from sae_graphs.effects.intervention_kinds import parse_intervention
    from sae_graphs.effects.settings import DEFAULT_INTERVENTIONS, GraphSettings, parse_read
    from sae_graphs.model.stream import parse_layers

    if select is Select.answer and top_k is not None:
        raise SaeGraphsError(
            "--top-k is for --select effect; give --nodes, the strongest features at tokens to "
            "compare, or that"
        )
    settings = GraphSettings(
        select=select.value,
        nodes=nodes,
        dense=dense,
        top_k=top_k,
        ablate=None if ablate is None else ablate.value,
        ablate_first=ablate_first,
        read=parse_read(read),
        layers=parse_layers(layers),
        prepend_bos=prepend_bos,
        steps=steps,
    )
    intervention = intervention or DEFAULT_INTERVENTIONS[settings.select]
    parse_intervention(intervention)  # a mistake is told before anything is loaded
    some_text(prompt)
    source = Source(model, saes, device, dtype, memory, sae_pattern, settings.layers)
    compare_and_print(prompt, settings, source, style.value, intervention)


def compare_and_print(
    prompt: str, settings: GraphSettings, source: Source, style: str, intervention: str
) -> None:
    """Load, measure, estimate, print."""
    instrumented = source.load()
    from sae_graphs.effects.comparison import compare_methods

    ablated = means_if_asked(instrumented, intervention, always=settings.select == "answer")
    with progress("comparing", unit="layer pairs by method") as report:
        found = compare_methods(
            instrumented, prompt, settings, intervention=ablated, progress=report
        )
    from sae_graphs.cli.comparison_table import print_comparison

    print_comparison(out, found, style)
