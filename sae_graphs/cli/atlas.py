"""`sae-graphs atlas`: the graphs of many prompts in a database, and questions to it.

Its commands are in modules of their own.
"""

from __future__ import annotations

import typer

app = typer.Typer(
    help="The graphs of many prompts in a database, and what it says.\n\n"
    "Example: `sae-graphs atlas build --prompts prompts.jsonl --out outputs/atlas`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
