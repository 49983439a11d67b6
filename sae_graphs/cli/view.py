"""`sae-graphs view`: saved runs in a browser.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from sae_graphs.cli.console import out, warn
from sae_graphs.words import counted


def view(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of runs, such as outputs, or a run's own.",
            show_default=False,
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 for any.", show_default="8765, or any that is free"
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in your browser.")] = False,
) -> None:
    """Look at saved runs: a gallery, each graph's explorer, two graphs side by side.

    Example: `sae-graphs view outputs --open`

    Served to this machine alone (127.0.0.1) until Ctrl-C; runs are read and never written to. A
    run's page may ask what its answer would be with features off, or set to a multiple: then the
    run's model is loaded, in a process of its own, and nothing is fetched for it. On another
    machine, reach it through a tunnel: `ssh -L 8765:127.0.0.1:8765 HOST`.
    """
    from sae_graphs.gallery.runs import links_in
    from sae_graphs.gallery.server import address, gallery_server

    try:
        with gallery_server(folder, port, model="sae_graphs.cli.what_if") as server:
            at = address(server)
            out.print(f"runs in {folder}: {at}", markup=False, highlight=False, soft_wrap=True)
            if links := links_in(folder):
                were = "was" if links == 1 else "were"
                warn(f"{counted(links, 'link')} {were} not followed; copy the runs to show them")
            out.print("Ctrl-C ends it", style="dim")
            if open_page:  # a browser in the terminal is back only when it was answered
                threading.Thread(target=_open, args=(at,), daemon=True).start()
            server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        out.print("ended; nothing was changed")


def _open(at: str) -> None:
    if not webbrowser.open(at):
        warn(f"no browser could be opened; go to {at}")
