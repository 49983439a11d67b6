"""A fact written at every token and layer, each time into the model as it was; and its trace.

Letters: `P` tokens, `L` layers, `T` tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sae_graphs.editing.cases_file import FactCase, check_has_s
from sae_graphs.editing.covariance import Covariance, Text
from sae_graphs.editing.edit import edit
from sae_graphs.editing.hearing import hear, questions_of
from sae_graphs.editing.places import SHARES, SIZES, SWEEPS, Everywhere, rows_of
from sae_graphs.editing.prompts import placed
from sae_graphs.editing.scores import measured
from sae_graphs.editing.settings import TOKENS, EditSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.reading import restored_runs
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.tracing.subject import find_subject
from sae_graphs.tracing.trace import trace

NOISE_RUNS = 6
STRENGTH = "auto"  # of the noise


class Sweep:
    """Writes a fact at every one of `TOKENS` and every layer, and traces it.

    `strength` is that of the trace's noise, by default `STRENGTH`.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: EditSettings,
        text: Text,
        covariances: Mapping[int, Covariance],
        *,
        strength: str | None = None,
        prepend_bos: bool | None = None,
    ) -> None:
        self.strength = strength or STRENGTH
        self.model, self.settings, self.text = model, settings, text
        self.covariances, self.prepend_bos = covariances, prepend_bos

    def __call__(self, case: FactCase) -> Everywhere:
        """One fact; raises `SaeGraphsError` where it does not hang on its subject, or fit.

        Or where it has no paraphrases or neighbours, without which there is no S.
        """
        check_has_s([case])
        restored = self.restored(case)
        asked = questions_of(self.model, case, prepend_bos=self.prepend_bos)
        asked = asked._replace(generation=(), retained=())
        before = hear(self.model, asked, []).heard
        found: dict[str, list[list[float]]] = {name: [] for name in (*SHARES, *SIZES)}
        for token in TOKENS:
            for rows in found.values():
                rows.append([])
            for layer, covariance in sorted(self.covariances.items()):
                made = edit(
                    self.model,
                    subject=case.subject,
                    prompt=case.prompt,
                    target=case.new,
                    settings=replace(self.settings, layer=layer, token=token),
                    texts=self.text,
                    covariance=covariance,
                    prepend_bos=self.prepend_bos,
                )
                with made.applied(self.model):
                    after = hear(self.model, asked, []).heard
                values = measured(before, after)
                for name, rows in found.items():
                    rows[-1].append(values[name])
        return Everywhere(
            case.case_id,
            case.asked,
            {name: rows_of(rows) for name, rows in found.items()},
            restored,
        )

    def restored(self, case: FactCase) -> dict[str, tuple[tuple[float, ...], ...]]:
        """What restoring each state, and each window of MLPs, brings back at those tokens."""
        true = questions_of(self.model, case, prepend_bos=self.prepend_bos).true
        ids = self.model.tokenize(case.asked, prepend_bos=self.prepend_bos)
        behind = len(case.asked) - case.prompt.index("{}")
        subject = find_subject(self.model, ids, case.subject, len(ids) - 1, behind=behind)
        found = trace(
            self.model,
            case.asked,
            subject=subject.positions,
            target=f"#{true}",
            prepend_bos=self.prepend_bos,
            settings=TraceSettings(
                sweeps=SWEEPS,
                strength=self.strength,
                noise_runs=NOISE_RUNS,
                seed=self.settings.seed,
                window=1,
            ),
        )
        places = [
            placed(
                self.model,
                *(case.asked, case.subject, token),
                before=case.prompt.index("{}"),
                prepend_bos=self.prepend_bos,
            ).at
            for token in TOKENS
        ]
        shares = {name: restored_runs(found, name).mean(axis=0)[places] for name in SWEEPS}
        if not all(np.isfinite(each).all() for each in shares.values()):
            raise SaeGraphsError("its trace holds what is no number")
        return {name: rows_of(each.tolist()) for name, each in shares.items()}
