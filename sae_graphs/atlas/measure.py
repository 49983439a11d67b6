"""One prompt after the other measured by this process, and what all their rows have in common."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sae_graphs._version import __version__
from sae_graphs.atlas.evidence import trace_rows, verdict_rows_of
from sae_graphs.atlas.plan import Plan
from sae_graphs.atlas.prompts import SUBJECT, Asked, digest
from sae_graphs.atlas.rows import Row, Rows, failure_of, rows_of
from sae_graphs.checkpoint import run_key
from sae_graphs.effects.build import bare_graph
from sae_graphs.effects.experiment import in_scope
from sae_graphs.effects.intervention_kinds import parse_intervention
from sae_graphs.effects.settings import DEFAULT_INTERVENTIONS, GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import Reference, mean_intervention, references_of
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel, weights_of, with_saes
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.saes import SAELayer
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.trace import trace
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.run import validate_answer
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.validate import validate

Found = TypeVar("Found")


class Measuring(Protocol):
    """Who measures: this process, or workers elsewhere."""

    def facts(self) -> Mapping[str, Any]:
        """What all rows have in common."""

    def rows(self, asked: Sequence[Asked]) -> Iterator[Rows]:
        """The rows of each prompt, in any order; one that fails has the reason."""


class Here:
    """This process measures, one prompt after the other."""

    def __init__(self, model: Any, plan: Plan) -> None:
        settings, intervention = plan.settings, plan.intervention
        self._model = with_saes(model)
        self._plan = plan
        self._name = intervention or DEFAULT_INTERVENTIONS[settings.select]
        self._intervention: Intervention | str | None = intervention
        self._references: Sequence[Reference] | None = None
        kind = parse_intervention(self._name)
        if kind.name == "resample":
            self._name = f"resample ({digest(kind.prompt)})"  # whatever the file is called
        self._resampled = intervention if kind.name == "resample" else None
        if settings.select == "answer" or kind.name == "mean":
            self._references = references_of(self._scope())
            if settings.select == "effect":
                self._intervention = mean_intervention(self._scope(), self._references)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def facts(self) -> Mapping[str, Any]:
        """See `Measuring`: the model by name, by its weights' digest, the settings, the version.

        The digest is also of the SAEs' settings, the tokenizer, and what features do on ordinary
        text, where that is measured with.
        """
        model = self._scope()
        held = enumerate(self._references or ())
        taken = [
            (f"{name} {number}", getattr(one, name))
            for number, one in held
            for name in ("mean", "density")
        ]
        facts = {
            "sae_graphs": __version__,
            "model": model.name,
            "saes": model.stack.name,
            "layers": [[layer.label, layer.point.hook_name] for layer in model.stack.layers],
            "dtype": str(model.model.cfg.dtype).removeprefix("torch."),
            "intervention": self._name,
            **self._plan.facts(),
        }
        inner = [facts, *map(_configured, model.stack.layers), _tokenizer(model)]
        return {**facts, "digest": run_key(inner, itertools.chain(weights_of(model), taken))}

    def _scope(self) -> InstrumentedModel:
        names = {layer.label: layer.neuronpedia_id for layer in self._model.stack.layers}
        return in_scope(self._model, self._plan.settings.located(names))

    def rows(self, asked: Sequence[Asked]) -> Iterator[Rows]:
        """See `Measuring`."""
        return (self.measured(each) for each in asked)

    def measured(self, asked: Asked) -> Rows:
        """The rows of one prompt; where it fails, whatever the reason, that."""
        settings, validation = self._plan.settings, self._plan.validation
        try:
            if asked.target is not None:
                settings = replace(settings, target=(asked.target,))
            graph = bare_graph(
                *(self._model, asked.prompt, settings, self._intervention, self._references),
                paths=validation is not None,
            )
            rows = rows_of(graph, asked)
            return rows._replace(tables={**rows.tables, **self._beside(graph, asked, settings)})
        except SaeGraphsError as problem:
            return failure_of(asked, str(problem))
        except Exception as problem:  # one prompt, too long for the memory say, never ends a build
            return failure_of(asked, f"{type(problem).__name__}: {problem}")

    def _beside(
        self, graph: CausalGraph, asked: Asked, settings: GraphSettings
    ) -> dict[str, list[Row]]:
        """The rows of what else was asked for; where it cannot be said of this prompt, of that."""
        found: dict[str, list[Row]] = {}
        if self._plan.trace is not None:
            found |= trace_rows(asked.id, _tried(lambda: self._traced(graph, asked, settings)))
        if self._plan.validation is not None:
            found |= verdict_rows_of(asked.id, _tried(lambda: self._validated(graph)))
        return found

    def _traced(self, graph: CausalGraph, asked: Asked, settings: GraphSettings) -> Trace:
        """Of the graph's own answer, read where the graph is."""
        return trace(
            *(self._model, asked.prompt),
            subject=asked.categories.get(SUBJECT) or None,
            target=settings.target or None,
            read=graph.run.read_position,
            prepend_bos=settings.prepend_bos,
            settings=self._plan.trace,
        )

    def _validated(self, graph: CausalGraph) -> AnswerReport | ValidationReport:
        settings = self._plan.validation
        assert settings is not None
        if graph.run.answer is None:
            return validate(self._model, graph, settings=settings)
        return validate_answer(
            *(self._model, graph, settings),
            intervention=self._resampled,
            references=self._references,
        )


# -- inside ----------------------------------------------------------------------------------------


def _tried(measure: Callable[[], Found]) -> Found | str:
    """What is measured, or why that cannot be; other errors are those of the prompt as a whole."""
    try:
        return measure()
    except SaeGraphsError as problem:
        return str(problem)


def _configured(layer: SAELayer) -> dict[str, str]:
    """An SAE's settings, such as how many features are on at once; not how it was made."""
    held = layer.cfg.to_dict()
    return {name: str(value) for name, value in held.items() if name not in ("device", "metadata")}


def _tokenizer(model: InstrumentedModel) -> Any:
    """What determines a prompt's tokens."""
    found = getattr(model.model, "tokenizer", None)
    fast = getattr(found, "backend_tokenizer", None)
    if fast is not None:
        held = json.loads(fast.to_str())
        for of_a_call in ("truncation", "padding"):
            held.pop(of_a_call, None)
    else:
        held = None if found is None else sorted(found.get_vocab().items())
    return [held, getattr(model.model.cfg, "default_prepend_bos", None)]
