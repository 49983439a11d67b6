"""One fact of a case file written into a model, heard before and after, and undone.

Letters: `B` rows, `T` tokens, `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from sae_graphs.editing.applied import edited, replaced
from sae_graphs.editing.cases_file import FactCase
from sae_graphs.editing.covariance import Covariance, Text
from sae_graphs.editing.edit import edit, prepared
from sae_graphs.editing.fine_tuning import fine_tuned
from sae_graphs.editing.hearing import hear, other_text, questions_of, surprisal
from sae_graphs.editing.projection import projection_of
from sae_graphs.editing.scores import Scored
from sae_graphs.editing.settings import FINE_TUNING, WAYS, EditSettings, Method, Tuning
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.model.language_model import LanguageModel


class Changed(NamedTuple):
    """A fact written: the matrix `[D, F]` that is then in place, what it took, what to know."""

    matrix: Tensor
    seconds: float
    warnings: tuple[str, ...] = ()


class Scorer:
    """Writes facts one at a time by one of `WAYS`, and asks what their cases ask.

    `covariance` is that of the layer; fine-tuning needs none, and is done as `tuning` says.
    Perplexity is that of the pieces of the text that no covariance is taken over.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: EditSettings,
        text: Text,
        covariance: Covariance | None,
        *,
        way: str = "rome",
        tuning: Tuning | None = None,
        prepend_bos: bool | None = None,
    ) -> None:
        if way not in WAYS:
            raise SaeGraphsError(f"method {way!r:.40}: expected one of {quoted(WAYS)}")
        self.model, self.text, self.covariance, self.way = model, text, covariance, way
        self.layer = settings.layer_of(len(model.model.blocks))
        method: Method = "rome-mixed-keys" if way == "rome-mixed-keys" else "rome"
        self.settings = replace(settings, method=method, layer=self.layer)
        self.weights = projection_of(model.model, self.layer).weights
        self.prepend_bos, self.tuning = prepend_bos, tuning or Tuning()
        self.other: Sequence[Tensor] = other_text(model, text.held_out())
        self._surprisal = surprisal(model, self.other) if self.other else None

    def __call__(self, case: FactCase) -> Scored:
        """A case, written and heard; raises `SaeGraphsError` where it does not fit the model."""
        asked = questions_of(self.model, case, prepend_bos=self.prepend_bos)
        before = hear(self.model, asked, [], seed=self.settings.seed)
        made = self.written(case)
        with replaced(self.weights, made.matrix):
            after = hear(self.model, asked, self.other, seed=self.settings.seed)
        return Scored(
            case.case_id,
            case.asked,
            case.new,
            case.true,
            replace(before.heard, surprisal=self._surprisal),
            after.heard,
            round(made.seconds, 3),
            tuple(zip(case.generation, before.texts, after.texts, strict=True)),
            made.warnings,
            case.subject,
        )

    def written(self, case: FactCase) -> Changed:
        """The matrix with the fact in it."""
        started = time.perf_counter()
        if self.way == FINE_TUNING:
            alone = replace(self.settings, prefixes=0)
            found = prepared(
                self.model,
                *(case.subject, case.prompt, case.new, self.layer, self.text),
                settings=alone,
                prepend_bos=self.prepend_bos,
            )
            matrix = fine_tuned(found.rows, found.target, alone, self.tuning)
            return Changed(matrix, time.perf_counter() - started, found.notes)
        made = edit(
            self.model,
            subject=case.subject,
            prompt=case.prompt,
            target=case.new,
            settings=self.settings,
            texts=self.text,
            covariance=self.covariance,
            prepend_bos=self.prepend_bos,
        )
        matrix = edited(self.weights.matrix, made)
        return Changed(matrix, time.perf_counter() - started, made.warnings)
