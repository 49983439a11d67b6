"""What stands in for the process that runs models: it answers by what it is asked, or ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_graphs.gallery.worker import answering

SECONDS = 1.5  # that x3 takes


def serve() -> None:
    """Answer until there are no more questions."""
    answering(answer)


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`x3` takes long, `x9` ends the process each time, `x8` once; `x7` is a problem, late."""
    values = set(asked["changes"].values())
    flag = Path(asked["folder"]) / "ended"
    if "x9" in values or ("x8" in values and not flag.exists()):
        flag.touch()
        os._exit(1)
    if "x7" in values:
        time.sleep(SECONDS)
        return {"problem": "the run's model cannot be loaded: <b>none</b>"}
    if "x3" in values:
        time.sleep(SECONDS)
    rows = [[")", 0.9, 0.25, "90%", "25%"], ["<img src=x>\\u202e", 0.01, 0.5, "1.0%", "50%"]]
    return {"words": f"the log-odds of ) with {sorted(asked['changes'].items())}", "rows": rows}
