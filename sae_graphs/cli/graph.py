"""`sae-graphs graph`: from a prompt, or from saved effects, to a folder of files.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from typing import Any

import typer

from sae_graphs.cli.drawing import Said, Wanted, draw, draw_again
from sae_graphs.cli.options import (
    AblateFirst,
    AblateOfGraph,
    AnnotationsFile,
    Budget,
    Caption,
    Contrast,
    Dense,
    Device,
    Dtype,
    Formats,
    From,
    Heads,
    InterventionOption,
    Layers,
    Memory,
    Method,
    MethodOption,
    MinPathEdges,
    Model,
    Neuronpedia,
    NodesOption,
    Out,
    Outputs,
    PerOption,
    Pin,
    PrependBos,
    Prompt,
    Read,
    SaePattern,
    Saes,
    SaveEffects,
    Seed,
    Select,
    SelectOption,
    Source,
    Steps,
    Target,
    Title,
    TopK,
    formats_of,
    is_given,
)
from sae_graphs.errors import SaeGraphsError, quoted


def graph(
    context: typer.Context,
    prompt: Prompt = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    select: SelectOption = Select.answer,
    from_folder: From = None,
    ablate: AblateOfGraph = None,
    ablate_first: AblateFirst = False,
    intervention: InterventionOption = None,
    read: Read = "-1",
    layers: Layers = None,
    pin: Pin = None,
    outputs: Outputs = 0,
    target: Target = None,
    contrast: Contrast = None,
    method: MethodOption = Method.exact,
    steps: Steps = 10,
    heads: Heads = False,
    nodes: NodesOption = None,
    dense: Dense = False,
    budget: Budget = None,
    top_k: TopK = None,
    per: PerOption = None,
    min_path_edges: MinPathEdges = None,
    save_effects: SaveEffects = False,
    out_folder: Out = None,
    formats: Formats = "svg,png,html,dot",
    title: Title = None,
    caption: Caption = None,
    annotations: AnnotationsFile = None,
    neuronpedia: Neuronpedia = True,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: PrependBos = None,
    seed: Seed = 0,
) -> None:
    """Draw the graph of what a prompt's next token hangs on.

    Example: `sae-graphs graph "Copyright (C"`

    Each layer's strongest effects on the next: `sae-graphs graph "Copyright (C" --select effect`

    Without a model, from saved effects: `sae-graphs graph --from outputs/kept --top-k 12`

    With your own labels: `sae-graphs graph --from outputs/copyright-c --annotations mine.json`
    """
    from sae_graphs.effects.intervention_kinds import parse_intervention
    from sae_graphs.effects.settings import DEFAULT_INTERVENTIONS, GraphSettings, parse_read
    from sae_graphs.model.stream import parse_layers
    from sae_graphs.render.pictures import FORMATS

    pictures = formats_of(formats, FORMATS)
    pins = tuple(pin or ())
    said = Said(annotations, title, caption)
    if from_folder is not None:
        given = _check_given_with_from(context)
        settings_given = {
            "nodes": nodes,
            "dense": dense,
            "top_k": top_k,
            "per": None if per is None else per.value,
            "min_path_edges": min_path_edges,
            "layers": parse_layers(layers),
            "pin": pins,
        }
        chosen = {name: value for name, value in settings_given.items() if name in given}
        as_it_is = not chosen and bool(given & {"annotations", "title", "caption", "formats"})
        draw_again(from_folder, chosen, out_folder, pictures, said=said, as_it_is=as_it_is)
        return
    _check_steps(context, method)
    settings = GraphSettings(
        select=select.value,
        nodes=nodes,
        dense=dense,
        budget=budget,
        top_k=top_k,
        min_path_edges=min_path_edges,
        per=None if per is None else per.value,
        ablate=None if ablate is None else ablate.value,
        ablate_first=ablate_first,
        heads=heads,
        method=method.value,
        steps=steps,
        read=parse_read(read),
        outputs=outputs,
        target=tuple(target or ()),
        contrast=contrast,
        layers=parse_layers(layers),
        pin=pins,  # type: ignore[arg-type]  # parsed by the settings
        prepend_bos=prepend_bos,
        seed=seed,
    )
    intervention = intervention or DEFAULT_INTERVENTIONS[settings.select]
    parse_intervention(intervention)  # a mistake is told before anything is loaded
    if not prompt:
        raise SaeGraphsError(
            'no prompt, or an empty one; give some text, such as "Copyright (C", or a folder of '
            "saved effects with --from"
        )
    source = Source(model, saes, device, dtype, memory, sae_pattern, settings.layers)
    wanted = Wanted(out_folder, pictures, save_effects, neuronpedia, said)
    draw(prompt, settings, source, wanted, intervention)


# -- options that go together ----------------------------------------------------------------------

_WITH_FROM = {
    "from_folder": "--from",
    "nodes": "--nodes",
    "dense": "--dense",
    "top_k": "--top-k",
    "per": "--per",
    "min_path_edges": "--min-path-edges",
    "layers": "--layers",
    "pin": "--pin",
    "out_folder": "--out",
    "formats": "--formats",
    "annotations": "--annotations",
    "title": "--title",
    "caption": "--caption",
}


def _check_steps(context: Any, method: Method) -> None:
    """Raises where steps were given for a method that has none."""
    if method is not Method.integrated_gradients and is_given(context, "steps"):
        raise SaeGraphsError(
            f"--steps is for --method {Method.integrated_gradients.value}, and the method is "
            f"{method.value}; leave --steps out, or give that method"
        )


def _check_given_with_from(context: Any) -> set[str]:
    """The names of the parameters that were given; raises where some do not go with `--from`."""
    given = {
        parameter.name: parameter
        for parameter in context.command.params
        if is_given(context, parameter.name)
    }
    foreign = [
        max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else "the prompt"
        for name, parameter in given.items()
        if name not in _WITH_FROM
    ]
    if foreign:
        fitting = quoted(list(_WITH_FROM.values())[1:], 20)
        raise SaeGraphsError(
            f"--from draws effects that were measured before, so {quoted(foreign, 20)} cannot be "
            f"given with it; expected {fitting} alone, or no --from"
        )
    return set(given)
