"""The command line: one command a module, tables in modules of their own.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sae_graphs._version import __version__
from sae_graphs.cli import (
    ablate,
    atlas,
    atlas_build,
    atlas_draw,
    atlas_query,
    compare,
    contexts,
    edges,
    edit,
    export,
    granger,
    graph,
    models,
    neuronpedia,
    trace,
    train_saes,
    validate,
    view,
)
from sae_graphs.cli.console import err, out
from sae_graphs.cli.options import BASICS
from sae_graphs.errors import STOPPED, SaeGraphsError

ClickError: type[Any] = typer.BadParameter.__mro__[2]  # the base of every usage error

app = typer.Typer(
    name="sae-graphs",
    help="Causal graphs of what a language model is thinking in one forward pass.\n\n"
    'Example: `sae-graphs graph "Copyright (C"`',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"sae-graphs {__version__}", highlight=False)


class Command(TyperCommand):
    """A command whose `--help` stands with its basic options, where it has panels of them."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        panels = [getattr(parameter, "rich_help_panel", None) for parameter in self.params]
        if option is not None and BASICS in panels:
            option.rich_help_panel = BASICS
        return option


for command in (
    graph.graph,
    edges.edges,
    ablate.ablate,
    compare.compare,
    contexts.contexts,
    validate.validate,
    trace.trace,
    edit.edit,
    granger.granger,
    models.models,
    neuronpedia.neuronpedia,
    train_saes.train_saes,
    export.export,
    view.view,
):
    app.command(cls=Command)(command)
for inner in (atlas_build.build, atlas_query.query, atlas_draw.draw):
    atlas.app.command(cls=Command)(inner)
app.add_typer(atlas.app, name="atlas")


def main() -> None:
    """Entry point: exit 0 done, 2 the user's mistake in one line, 130 stopped, 1 a bug, or runs
    that failed among others."""
    if logging.lastResort is not None:  # what the library warns of, as the commands would say it
        logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show every character
    try:
        code = app(standalone_mode=False, prog_name="sae-graphs")
        if code == STOPPED:  # Ctrl-C, as typer answers it
            raise KeyboardInterrupt
    except SaeGraphsError as mistake:
        _fail(str(mistake))
    except ClickError as mistake:
        if not mistake.format_message():  # no command was given: the help has been shown
            sys.exit(0)
        command = mistake.ctx.command_path if getattr(mistake, "ctx", None) else "sae-graphs"
        _fail(f"{mistake.format_message().rstrip('.')}{given_words(mistake)}; see {command} --help")
    except (KeyboardInterrupt, typer.Abort):
        err.print("stopped; no half-written file is left")
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as problem:
        if not _was_stopped(problem):
            raise
        err.print("stopped; no half-written file is left")
        sys.exit(STOPPED)
    sys.exit(code if isinstance(code, int) else 0)


def _was_stopped(problem: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind an error: imports that it ends are told as failed ones."""
    while problem is not None:
        if isinstance(problem, KeyboardInterrupt):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def given_words(mistake: Any) -> str:
    """What was given for the option at fault, where the message does not say."""
    names = getattr(getattr(mistake, "param", None), "opts", [])
    given = [
        word.partition("=")[2] if "=" in word else following
        for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True)
        if word.partition("=")[0] in names
    ]
    return f" (given: {given[-1]!r})" if given and repr(given[-1]) not in str(mistake) else ""


def _fail(message: str) -> None:
    line = " ".join(message.split())
    err.print(f"error: {line}", markup=False, highlight=False, soft_wrap=True, style="red")
    sys.exit(2)
