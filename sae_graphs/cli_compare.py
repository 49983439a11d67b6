"""`sae-graphs compare`: exact effects beside their estimates.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_graphs.cli_console import out, progress
from sae_graphs.cli_graph import Source

if TYPE_CHECKING:
    from sae_graphs.effects.settings import GraphSettings


def compare_and_print(prompt: str, settings: GraphSettings, source: Source, style: str) -> None:
    """Load, measure, estimate, print."""
    instrumented = source.load()
    from sae_graphs.effects.comparison import compare_methods

    with progress("comparing", unit="layer pairs by method") as report:
        found = compare_methods(instrumented, prompt, settings, progress=report)
    from sae_graphs.comparison_table import print_comparison

    print_comparison(out, found, style)
