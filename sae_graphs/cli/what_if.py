"""What a run's answer would be with features changed: the process beside `sae-graphs view`.

It holds one model, that of the run last asked about. Nothing slow is imported before it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.gallery.runs import Run, graph_of, saes_given
from sae_graphs.gallery.worker import answering
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.explorer.what_if import SHOWN, Chance, outcome_told

if TYPE_CHECKING:
    from sae_graphs.features.reference import Reference
    from sae_graphs.model.answer import Answer
    from sae_graphs.model.clean_run import CleanRun
    from sae_graphs.model.instrument import InstrumentedModel


class Ready(NamedTuple):
    """A run whose model answers its prompt as its graph says.

    `off` is what a feature becomes that is switched off, as `effects.changes` writes it.
    """

    graph: CausalGraph
    model: InstrumentedModel
    clean: CleanRun
    read: int
    answer: Answer
    off: float | str
    references: Sequence[Reference] | None


class Measured(NamedTuple):
    """Next tokens, and the answer's score before and after a change, in nats."""

    chances: list[Chance]
    before: float
    after: float


class Models:
    """The model that was loaded last, and the run that it is ready for."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._model: InstrumentedModel | None = None
        self._ready: Ready | None = None

    def ready(self, run: Run) -> Ready:
        """The run made ready; raises `SaeGraphsError` where its model cannot be had or is not."""
        graph = graph_of(run)
        if self._ready is None or self._ready.graph != graph:
            self._ready = None  # before another model is loaded
            self._ready = prepared(graph, self._of(run, graph))
        return self._ready

    def _of(self, run: Run, graph: CausalGraph) -> InstrumentedModel:
        given, pattern = saes_given(run)
        dtype = str(graph.run.settings.get("dtype") or "float32")
        key = graph.run.model, given, pattern, dtype
        if self._model is None or key != self._key:
            self._model = None
            from sae_graphs.pretrained.loading import load

            try:
                self._model = load(graph.run.model, saes=given, sae_pattern=pattern, dtype=dtype)
            except SaeGraphsError as problem:
                raise SaeGraphsError(f"the run's model cannot be loaded: {problem}") from problem
            self._key = key
        return self._model


def prepared(graph: CausalGraph, model: InstrumentedModel) -> Ready:
    """Check that the graph is the model's, and run its prompt.

    Raises `SaeGraphsError` where the model answers it in another way than the graph says, and
    where what the run put in features' place is not known whole.
    """
    from sae_graphs.features.reference import mean_intervention, references_of
    from sae_graphs.model.answer import Answer
    from sae_graphs.model.next_token import token_id
    from sae_graphs.validation.settings import ValidationSettings
    from sae_graphs.validation.subjects import (
        check_same_run,
        in_scope,
        prompt_of,
        settings_of,
        subject,
    )

    if graph.run.answer is None or not graph.resolves_positions:
        raise SaeGraphsError("only an answer graph of single tokens can be asked what if")
    scope, plain = in_scope(model, graph), ValidationSettings()
    own = subject(scope, prompt_of(graph), "discovery", settings_of(graph), plain, own=True)
    check_same_run(own, graph)
    target = graph.run.outputs[0]
    contrast = None if target.contrast is None else token_id(scope, target.contrast)
    made = str(graph.run.settings.get("intervention", ""))
    off: float | str = f"x{made.removeprefix('scale ')}" if made.startswith("scale ") else 0.0
    references = None
    if made.startswith("mean ("):
        off, references = "mean", references_of(scope)
        now = mean_intervention(scope, references).name
        if now != made:
            raise SaeGraphsError(
                f"the run put the {made} in place of a feature, and the model's is the {now}: make "
                "the graph again"
            )
    elif made != "zero" and not made.startswith("scale "):
        raise SaeGraphsError(f"what {made!r:.60} puts in place of a feature is not in the record")
    answer = Answer(target.token_id, contrast)
    return Ready(graph, scope, own.clean, own.read, answer, off, references)


def measured(ready: Ready, changes: Mapping[str, str]) -> Measured:
    """The answer with features `off` or at a multiple, `x0.5`, all together.

    Raises `SaeGraphsError` for what is no feature of the graph.
    """
    import torch

    from sae_graphs.effects.ablate import changed_logits
    from sae_graphs.effects.changes import parse_changes

    known = {str(node.feature) for node in ready.graph.nodes if node.feature.is_feature}
    if unknown := sorted(set(changes) - known):
        raise SaeGraphsError(f"{quoted(unknown)}: no feature of this graph")
    wanted = {name: ready.off if value == "off" else value for name, value in changes.items()}
    model, clean, read, answer = ready.model, ready.clean, ready.read, ready.answer
    before = clean.logits[read]
    with torch.no_grad():
        after = changed_logits(model, clean, parse_changes(wanted), read, ready.references)
    if not after.isfinite().all():
        raise SaeGraphsError("with these changes the model answers NaN; give smaller multiples")
    ids = [answer.token_id, *([] if answer.contrast is None else [answer.contrast])]
    for logits in (before, after):
        ids += logits.topk(min(SHOWN, len(logits))).indices.tolist()
    first, last = (logits.double().softmax(-1) for logits in (before, after))
    chances = [
        Chance(model.token_string(token), float(first[token]), float(last[token]))
        for token in dict.fromkeys(ids)
    ]
    return Measured(chances, *(float(answer.score(logits)) for logits in (before, after)))


# -- the process -----------------------------------------------------------------------------------


def serve() -> None:
    """Answer questions, one a line, until there are no more."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a run that is looked at fetches nothing
    models = Models()
    answering(lambda asked: answer(models, asked))


def answer(models: Models, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a question, or its `problem` in one line."""
    try:
        ready = models.ready(Run(asked["name"], Path(asked["folder"])))
        return outcome_told(ready.graph.run.outputs[0], *measured(ready, asked["changes"]))
    except SaeGraphsError as problem:
        return {"problem": str(problem)}
    except MemoryError:
        return {"problem": "the memory does not hold this run's model"}
    except Exception as problem:  # our bug: the page says so
        return {"problem": f"this is a bug: {problem!r:.300}"}
