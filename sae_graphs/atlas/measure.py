"""One prompt after the other measured by this process, and what all their rows have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sae_graphs._version import __version__
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import Rows, failure_of, rows_of
from sae_graphs.checkpoint import run_key
from sae_graphs.effects.build import bare_graph
from sae_graphs.effects.settings import DEFAULT_INTERVENTIONS, GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import references_of
from sae_graphs.model.instrument import weights_of, with_saes


class Measuring(Protocol):
    """Who measures: this process, or workers elsewhere."""

    def facts(self) -> Mapping[str, Any]:
        """What all rows have in common."""

    def rows(self, asked: Sequence[Asked]) -> Iterator[Rows]:
        """The rows of each prompt, in any order; one that fails has the reason."""


class Here:
    """This process measures, one prompt after the other."""

    def __init__(self, model: Any, settings: GraphSettings, intervention: str | None) -> None:
        self._model = with_saes(model)
        self._settings, self._intervention = settings, intervention

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def facts(self) -> Mapping[str, Any]:
        """See `Measuring`: the model by name, by its weights' digest, the settings, the version."""
        settings = self._settings
        model = self._model
        if settings.layers is not None:
            model = model.between(*settings.layers)
        means: tuple[tuple[str, Any], ...] = ()
        if settings.select == "answer":
            means = tuple(
                (f"reference {n}", held.mean) for n, held in enumerate(references_of(model))
            )
        facts = {
            "sae_graphs": __version__,
            "model": model.name,
            "saes": model.stack.name,
            "layers": [[layer.label, layer.point.hook_name] for layer in model.stack.layers],
            "dtype": str(model.model.cfg.dtype).removeprefix("torch."),
            "intervention": self._intervention or DEFAULT_INTERVENTIONS[settings.select],
            "settings": dict(settings.to_json()),
        }
        return {**facts, "digest": run_key(facts, itertools.chain(weights_of(model), means))}

    def rows(self, asked: Sequence[Asked]) -> Iterator[Rows]:
        """See `Measuring`."""
        return (self.measured(each) for each in asked)

    def measured(self, asked: Asked) -> Rows:
        """The rows of one prompt; where it fails, whatever the reason, that."""
        settings = self._settings
        try:
            if asked.target is not None:
                settings = replace(settings, target=(asked.target,))
            graph = bare_graph(self._model, asked.prompt, settings, self._intervention)
            return rows_of(graph, asked)
        except SaeGraphsError as problem:
            return failure_of(asked, str(problem))
        except Exception as problem:  # one prompt, too long for the memory say, never ends a build
            return failure_of(asked, f"{type(problem).__name__}: {problem}")
