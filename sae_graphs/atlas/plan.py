"""What is measured of each prompt of an atlas, wherever it is measured. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_graphs.atlas.prompts import SUBJECT, Asked, check_categories, check_subjects
from sae_graphs.atlas.rows import TRACE, VALIDATION, tables_in
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.schema import plain
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.settings import ValidationSettings

OF_ANSWERS = ("feature", "source", "answer", "shared_edges", "similarity", "x", "y")  # columns


@dataclass(frozen=True)
class Plan:
    """A graph of each prompt, and where they are asked for, its trace, and its validation."""

    settings: GraphSettings
    intervention: str | None = None
    trace: TraceSettings | None = None
    validation: ValidationSettings | None = None

    def __post_init__(self) -> None:
        if self.trace is not None and self.settings.contrast is not None:
            raise SaeGraphsError(
                f"the graphs are of a token over {self.settings.contrast!r:.40}, which a trace "
                "cannot be; leave out contrast, or trace"
            )

    def facts(self) -> Mapping[str, Any]:
        """What an atlas's facts say of it beside the graphs' own settings: nothing of what is not
        measured, as atlases of before do."""
        found: dict[str, Any] = {"settings": dict(self.settings.to_json())}
        if self.trace is not None:
            found[TRACE] = plain(self.trace)
        if self.validation is not None:
            found[VALIDATION] = plain(self.validation.to_json())
        return found


def categories_of(asked: Sequence[Asked], plan: Plan) -> tuple[str, ...]:
    """The names of the categories, the subject last; raises where they cannot be so called, or no
    prompt has the subject that a trace corrupts."""
    own = {name for schema in tables_in(plan.facts()).values() for name in schema.names}
    names = check_categories(asked, {*own, *OF_ANSWERS})
    if plan.trace is not None and plan.trace.corruption != "interchange":  # which needs none
        check_subjects(asked)
    return tuple(sorted(names, key=lambda name: name == SUBJECT))
