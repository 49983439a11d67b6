"""The public names of the package, and the keyword options of its functions."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest
import typer

import sae_graphs as sg
from sae_graphs import cli, late
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.keywords import checked, with_settings
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.settings import ValidationSettings

TYPES = {
    *("CausalGraph", "Edge", "FeatureId", "GrangerReport", "InstrumentedModel", "LanguageModel"),
    *("Node", "SaeGraphsError", "Trace", "ValidationReport"),
}
VERBS = {
    *("ablate", "annotate", "causal_graph", "compare_methods", "difference", "discover"),
    *(
        "granger",
        "load",
        "load_model",
        "replot",
        "response_curve",
        "trace",
        "union",
        "validate",
        "verdicts",
    ),
}

# What only one of the two has: Python takes objects, the command line files and how to print.
COMMANDS_ALONE = {
    "graph": {
        *("prompt", "from_folder", "out_folder", "formats", "save_effects", "neuronpedia"),
        *("title", "caption", "annotations"),
    },
    "validate": {"run", "all_in", "prompt", "discover", "text", "out_folder"},
    "compare": {"prompt", "style"},
    "ablate": {"prompt", "style"},
    "granger": {"graph", "formats", "out_folder"},
}
PYTHON_ALONE = {
    "graph": {"settings", "effects", "resume", "progress", "fetching"},
    "validate": {
        *("settings", "other_controls", "texts", "corpus", "discovery", "resume", "progress"),
        *("layers", "fetching", "foretold", "roles"),
    },
    "compare": {
        *("settings", "methods", "progress", "fetching"),
        *("pin", "outputs", "target", "contrast"),  # asked of graphs
    },
    "ablate": {"layers", "fetching"},
    "granger": {"settings", "resume", "progress", "layers", "fetching"},
}


# -- names -----------------------------------------------------------------------------------------


def test_the_package_shows_its_verbs_and_types() -> None:
    assert set(dir(sg)) == TYPES | VERBS | {"interventions", "__version__"} == set(sg.__all__)
    assert all(inspect.getdoc(getattr(sg, name)) for name in dir(sg))
    assert set(late.PUBLIC) <= set(dir(sg))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = sg.lode


@pytest.mark.parametrize("place", [*late.PUBLIC.values(), *late.VIEWS.values()])
def test_every_late_name_is_there(place: str) -> None:
    found = late.found(place)
    assert callable(found) or isinstance(found, ModuleType)
    if callable(found):
        assert found.__module__ == place.partition(":")[0], "named where it is written"


def test_help_opens_with_verbs_types_and_an_example() -> None:
    text = pydoc.render_doc(sg, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    head = text[: text.index("PACKAGE CONTENTS")]
    assert "sg.causal_graph(model" in head
    assert [name for name in sg.__all__ if name not in head] == ["__version__"]


def test_interventions_by_either_name() -> None:
    from sae_graphs.model.interventions import scale

    assert sg.interventions.scale is scale
    assert set(sg.interventions.__all__) == {
        "ZERO",
        "Intervention",
        "mean_over",
        "resample",
        "scale",
    }


def test_a_submodule_is_reached_without_loading_torch() -> None:
    code = "import sys, sae_graphs.graph; sae_graphs.graph.graph.CausalGraph; dir(sae_graphs)"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- keyword options -------------------------------------------------------------------------------


def words(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_options_have_names_and_types(name: str) -> None:
    function = getattr(sg, name)
    assert inspect.signature(function).return_annotation not in (inspect.Signature.empty, "Any")
    for parameter in words(function).values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert parameter.annotation not in (parameter.empty, "Any"), parameter.name


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (sg.causal_graph, GraphSettings),
        (sg.discover, GraphSettings),
        (sg.compare_methods, GraphSettings),
        (sg.granger, GrangerSettings),
        (sg.trace, TraceSettings),
        (sg.validate, ValidationSettings),
    ],
    ids=lambda value: value.__name__,
)
def test_settings_are_named_with_their_defaults(function: Any, kind: type) -> None:
    defaults = {field.name: field.default for field in fields(kind)}
    if function is sg.discover:  # of effects, unless asked
        defaults["select"] = "effect"
    shared = words(function).keys() & defaults.keys()
    if function in (sg.causal_graph, sg.granger, sg.trace, sg.validate):
        assert shared == defaults.keys()
    own = {"steps"} if function is sg.compare_methods else set()
    assert {it: words(function)[it].default for it in shared - own} == {
        it: defaults[it] for it in shared - own
    }


@pytest.mark.parametrize(
    ("command", "function"),
    [
        *[("graph", sg.causal_graph), ("validate", sg.validate), ("compare", sg.compare_methods)],
        *[("ablate", sg.ablate), ("granger", sg.granger)],
    ],
)
def test_python_has_the_words_of_the_command_line(command: str, function: Any) -> None:
    parameters = typer.main.get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
    flags = {it.name: it for it in parameters if it.name != "help"}
    python = words(function) | words(sg.load)
    objects = {"prompt", "prompts", "graph"}
    assert flags.keys() - python.keys() - objects == COMMANDS_ALONE[command] - objects
    assert python.keys() - flags.keys() - objects == PYTHON_ALONE[command]
    for name in flags.keys() & words(function).keys():
        default = words(function)[name].default
        if default not in (inspect.Parameter.empty, None, ()) and name != "prompts":
            assert str(getattr(flags[name].default, "value", flags[name].default)) == str(default)


@pytest.mark.parametrize(
    ("function", "word", "near"),
    [
        (sg.causal_graph, "topk", "top_k"),
        (sg.discover, "min_path_edge", "min_path_edges"),
        (sg.compare_methods, "step", "steps"),
        (sg.replot, "pins", "pin"),
        (sg.granger, "max_lags", "max_lag"),
        (sg.trace, "noise_run", "noise_runs"),
        (sg.validate, "control", "controls"),
        (sg.ablate, "targt", "target"),
        (sg.load, "sae", "saes"),
        (sg.load_model, "dtyp", "dtype"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_misspelt_option_is_answered_with_the_nearest(
    function: Any, word: str, near: str
) -> None:
    with pytest.raises(SaeGraphsError, match=rf"no option '{word}'; did you mean {near}\?"):
        function(None, **{word: 1})


def test_an_unknown_option_is_answered_with_what_there_is() -> None:
    with pytest.raises(SaeGraphsError, match="no option 'colour'; expected select, nodes, "):
        sg.causal_graph(None, "", colour="red")  # type: ignore[call-overload]


def test_a_model_without_saes_is_told_from_one_with(tiny: sg.InstrumentedModel) -> None:
    alone: Any = sg.LanguageModel(tiny.model)
    graph = sg.causal_graph(tiny, "the cat sat", select="effect", min_path_edges=1)
    tries = (
        lambda: sg.ablate(alone, "the cat sat", {"1.1": 0}),
        lambda: sg.causal_graph(alone, "the cat sat"),
        lambda: sg.compare_methods(alone, "the cat sat"),
        lambda: sg.validate(alone, graph),
        lambda: sg.interventions.mean_over(alone, ["the cat sat"]),
    )
    for tried in tries:
        with pytest.raises(SaeGraphsError, match="is no model with SAEs; give one that"):
            tried()
    nothing: Any = None
    with pytest.raises(SaeGraphsError, match="None is no graph"):
        sg.validate(tiny, nothing)


def test_settings_are_made_in_one_place() -> None:
    @with_settings(GraphSettings, own=("steps",), renamed={"targets": "target"})
    def chosen(
        prompt: str,
        settings: GraphSettings | None = None,
        steps: int = 0,
        *,
        top_k: int = 8,
        target: str = "",
    ) -> tuple[GraphSettings | None, int]:
        return settings, steps

    assert chosen("a") == (None, 0)
    assert chosen("a", top_k=3, steps=4) == (GraphSettings(top_k=3), 4)
    assert chosen("a", GraphSettings(seed=3), 4) == (GraphSettings(seed=3), 4)
    assert chosen("a", settings=None, top_k=3) == (GraphSettings(top_k=3), 0)
    assert chosen("a", None, top_k=3) == (GraphSettings(top_k=3), 0)
    assert chosen("a", targets="b") == (GraphSettings(target=("b",)), 0)  # type: ignore[call-arg]
    with pytest.raises(SaeGraphsError, match="give settings, or top_k, not both"):
        chosen("a", GraphSettings(), top_k=8)
    with pytest.raises(SaeGraphsError, match="target and targets are one option"):
        chosen("a", target="b", targets="b")  # type: ignore[call-arg]
    with pytest.raises(SaeGraphsError, match="top_k is 0; expected a whole number"):
        chosen("a", top_k=0)
    with pytest.raises(SaeGraphsError, match="give options by name, or a GraphSettings"):
        chosen("a", settings={"top_k": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt"):
        chosen(top_k=3)  # type: ignore[call-arg]


def test_a_function_without_settings() -> None:
    @checked
    def shown(text: str, *, width: int = 3) -> str:
        return text[:width]

    assert shown("abcd", width=2) == "ab"
    with pytest.raises(SaeGraphsError, match="no option 'widht'; did you mean width"):
        shown("abcd", widht=2)  # type: ignore[call-arg]
