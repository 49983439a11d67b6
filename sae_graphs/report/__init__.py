"""What validation found, as files that people cite: a page, Markdown, plots, marked pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_graphs.report.files import report_files

__all__ = ["report_files"]


def __getattr__(name: str) -> Any:
    """`report_files` needs what draws plots; who only marks a graph does not wait for that."""
    if name == "report_files":
        from sae_graphs.report.files import report_files

        return report_files
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
