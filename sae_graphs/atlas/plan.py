"""What is measured of each prompt of an atlas, wherever it is measured. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sae_graphs.atlas.rows import TRACE, VALIDATION
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.schema import plain
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.settings import ValidationSettings


@dataclass(frozen=True)
class Plan:
    """A graph of each prompt, and where they are asked for, its trace, and its validation."""

    settings: GraphSettings
    intervention: str | None = None
    trace: TraceSettings | None = None
    validation: ValidationSettings | None = None

    def facts(self) -> Mapping[str, Any]:
        """What an atlas's facts say of it beside the graphs' own settings: nothing of what is not
        measured, as atlases of before do."""
        found: dict[str, Any] = {"settings": dict(self.settings.to_json())}
        if self.trace is not None:
            found[TRACE] = plain(self.trace)
        if self.validation is not None:
            found[VALIDATION] = plain(self.validation.to_json())
        return found
