"""Features at tokens made ready to be tested, without a graph; and reports on answer graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_graphs.effects.ablations import ablations_of
from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.features.reference import Reference, mean_intervention
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.answer import Answer
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention
from sae_graphs.validation.answer import run
from sae_graphs.validation.answer.bench import Bench
from sae_graphs.validation.answer.outcomes import judged
from sae_graphs.validation.answer.records import (
    AnswerReport,
    AnswerUnit,
    Flow,
    KeepOnly,
    Null,
    Score,
)
from sae_graphs.validation.answer.subject import Prepared, Unit, rarely_on
from sae_graphs.validation.evidence import Match
from sae_graphs.validation.settings import ValidationSettings
from tests.support.models import PROMPT, save_model_folder, save_sae_folder


def references(model: InstrumentedModel, mean: float = 0.0) -> list[Reference]:
    """All features are rarely on, and have the same mean."""
    return [
        Reference(
            torch.full((layer.n_features,), mean),
            torch.full((layer.n_features,), 0.1),
            1000,
            "made up",
            "none",
        )
        for layer in model.stack.layers
    ]


def tiny_answer_graph(root: Path) -> tuple[CausalGraph, str]:
    """An answer graph of four nodes, made by zero-ablation, and the folder of its SAEs.

    Model and SAEs are written below `root`.
    """
    from sae_graphs.effects.answer.build import answer_graph
    from sae_graphs.pretrained.loading import load

    saes = str(save_sae_folder(root / "saes"))
    model = load(str(save_model_folder(root / "model")), saes=saes)
    settings = GraphSettings(nodes=4)
    return answer_graph(model, PROMPT, settings, "zero", references=references(model)), saes


def ready(
    model: InstrumentedModel,
    prompt: str,
    *,
    mean: float | None = None,
    answer: Answer | None = None,
    read: int = -1,
) -> Prepared:
    """A prompt ready for its features to be ablated, to zero or to a mean; no unit is named."""
    clean = model.clean_run(prompt)
    read %= len(clean)
    asked = Asked(model, clean, answer or Answer(int(clean.logits[read].argmax())), read)
    used: Intervention = ZERO if mean is None else mean_intervention(model, references(model, mean))
    ablations = tuple(
        ablations_of(clean, depth, asked.places, used) for depth in range(len(clean.points))
    )
    dense = tuple(torch.zeros(len(found), dtype=torch.bool) for found in ablations)
    table = Table(ablations, (), dense)
    return Prepared(asked, table, used, rarely_on(asked, table), (), (), ())


def measured(
    found: Prepared, spots: Sequence[Spot], *, kind: Any = "graph", **options: Any
) -> AnswerUnit:
    """What is found of some features at tokens, not yet judged."""
    settings = ValidationSettings(**{"quick": True, **options})
    labels = [layer.label for layer in found.asked.model.stack.layers]
    names = tuple(FeatureId(labels[s.depth], s.feature, s.position) for s in spots)
    bench = Bench(found, settings, lambda n: None)
    return run._tested(Unit("unit", kind, names, tuple(spots)), bench)


# -- records made by hand --------------------------------------------------------------------------

CLEAN, WITHOUT_ANY = Score(6.0, 0.997), Score(-4.0, 0.02)


def null(kind: Any, p: float | None, **changes: Any) -> Null:
    """200 controls, or, without a p, none."""
    if p is None:
        return Null(kind, refused="layer 3 has 1 other")
    return Null(kind, **{"scores": (5.5,) * 200, "p": p, "narrowest": 7, **changes})


def nulls(matched: float | None, scaled: float | None, directions: float | None) -> Any:
    match = None if matched is None else Match(0.7, 0.9, 1.1)
    return (
        replace(null("matched", matched), match=match),
        null("scaled", scaled),
        null("directions", directions),
    )


def graph_unit(
    after: float = -3.0,
    p: tuple[float | None, float | None, float | None] = (0.005, 0.005, 0.005),
    kept: float | None = 0.005,
    **changes: Any,
) -> AnswerUnit:
    values: dict[str, Any] = {
        "name": "Graph",
        "kind": "graph",
        "features": (FeatureId("0", 1, 2), FeatureId("1", 4, 3)),
        "ablated": Score(after, 0.05),
        "nulls": nulls(*p),
        "keep_only": KeepOnly(Score(1.0, 0.7), null("matched", kept)),
    }
    return AnswerUnit(**{**values, **changes})


def path_unit(
    along: float = -1.5,
    total: float = -2.0,
    after: float = -3.0,
    p: tuple[float | None, float | None, float | None] = (0.005, 0.005, 0.005),
    **changes: Any,
) -> AnswerUnit:
    return graph_unit(
        after,
        p,
        **{"name": "Path 1", "kind": "path", "keep_only": None, "flow": Flow(along, total)}
        | changes,
    )


def answer_report(*units: AnswerUnit, **changes: Any) -> AnswerReport:
    values: dict[str, Any] = {
        "model": "demo",
        "saes": "demo",
        "prompt": "The letter [room 32",
        "tokens": ("The", " letter", " [", "room"),
        "target": "]",
        "contrast": None,
        "intervention": "mean (of 19,939 tokens, d72aeb5e)",
        "clean": CLEAN,
        "without_any": WITHOUT_ANY,
        "settings": {"controls": 200, "quick": True},
        "units": units or (graph_unit(), path_unit()),
    }
    return judged(AnswerReport(**{**values, **changes}))
