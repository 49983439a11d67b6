"""What Neuronpedia said before, in the user's cache: one small JSON file a feature.

Features that were found are kept for good; that one is missing is believed for a week, and that the
service was unavailable is never kept. A file that is damaged, or of another service, is as good as
none, and is written again when there is an answer.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.neuronpedia.answers import Answer
from sae_graphs.files import write_atomically
from sae_graphs.graph.addresses import SITE, Address
from sae_graphs.graph.feature_page import page_from
from sae_graphs.graph.records import Context
from sae_graphs.schema import rebuilt

SCHEMA = "sae_graphs/neuronpedia/2"
MISSING_SECONDS = 7 * 24 * 3600.0  # for how long a feature is believed to be missing


def cache_folder() -> Path:
    """`sae_graphs/neuronpedia` in the user's cache, which `XDG_CACHE_HOME` may move."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sae_graphs" / "neuronpedia"


@dataclass(frozen=True)
class Cache:
    """Answers of one service, in files `model/source/index.json` of a folder."""

    folder: Path
    service: str = SITE

    def file_of(self, address: Address) -> Path:
        """Where the answer for a feature lies, or would."""
        return self.folder / address.model / address.source / f"{address.index}.json"

    def read(self, address: Address) -> Answer | None:
        """What the service said of a feature; None where that is not known, or no longer."""
        try:
            held = json.loads(self.file_of(address).read_text(encoding="ascii"))
            if held["of"] != self._of(address):
                return None
            page, at = page_from(held["page"]), float(held["at"])
            contexts = rebuilt(
                tuple[Context, ...], held["contexts"], "contexts", remedy="ask again"
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SaeGraphsError):
            return None
        if page is None or page.status == "unavailable":
            return None
        if page.status == "missing" and not 0 <= time.time() - at < MISSING_SECONDS:
            return None
        return Answer(page, contexts)

    def write(self, address: Address, answer: Answer) -> None:
        """Keep an answer, in one step. Raises `OSError` where the folder cannot be written."""
        if answer.page.status == "unavailable":
            return
        held = {
            "of": self._of(address),
            "at": time.time(),
            "page": asdict(answer.page),
            "contexts": [asdict(context) for context in answer.contexts],
        }
        data = json.dumps(held, allow_nan=False).encode("ascii")
        write_atomically(self.file_of(address), data)

    def _of(self, address: Address) -> list[Any]:
        return [SCHEMA, self.service, address.neuronpedia_id, address.index]
