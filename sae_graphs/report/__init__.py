"""What validation found, as files that people cite: a page, Markdown, plots, marked pictures."""

from __future__ import annotations

from sae_graphs.report.files import report_files

__all__ = ["report_files"]
