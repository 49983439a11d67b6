"""One part measured by itself, and put into the results of an earlier run of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.progress import write_text
from benchmarks.table import Sheet


def merge(out: Path, name: str, part: str, found: dict[str, Any], sheet: Sheet) -> None:
    """Put a part into `<name>.json` and its table into `<name>.md`; all else stays as it is.

    Raises `ValueError` where there are no results yet.
    """
    data, page = out / f"{name}.json", out / f"{name}.md"
    if not data.is_file() or not page.is_file():
        raise ValueError(f"{data} and {page.name} are not there; run everything first")
    results = json.loads(data.read_text(encoding="utf-8"))
    write_text(data, json.dumps({**results, part: found}, indent=1) + "\n")
    write_text(page, merged_page(page.read_text(encoding="utf-8"), sheet))


def merged_page(text: str, sheet: Sheet) -> str:
    """A page of tables with one replaced, by the first word of its title, or added at the end."""
    start = f"**{sheet.title.partition(':')[0]}"
    parts = text.split("\n**")
    kept = [parts[0], *(f"**{part}" for part in parts[1:])]
    kept = [part.rstrip("\n") for part in kept if not part.startswith(start)]
    return "\n\n".join([*kept, sheet.markdown()])
