"""`sae-graphs graph`: from a prompt, or from saved effects, to a folder of files.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.cli_console import err, out, progress
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.instrument import InstrumentedModel
    from sae_graphs.settings import GraphSettings


class Source(NamedTuple):
    """The model to load."""

    model: str
    saes: str | None
    device: str
    dtype: str
    memory: str | None = None

    def load(self) -> InstrumentedModel:
        """Loaded; torch is imported here."""
        from sae_graphs.loading import load

        return load(
            self.model, saes=self.saes, device=self.device, dtype=self.dtype, memory=self.memory
        )


def draw(
    prompt: str,
    settings: GraphSettings,
    source: Source,
    out_folder: Path | None,
    formats: tuple[str, ...],
    *,
    save_effects: bool,
) -> None:
    """Load, measure, draw, write, print."""
    from sae_graphs.files import check_writable
    from sae_graphs.outputs import (
        EFFECTS,
        check_keeps_effects,
        folder_for,
        partial_folder,
        write_run,
    )

    folder = out_folder or folder_for(
        Path("outputs"), prompt, source.model, source.saes, save_effects=save_effects
    )
    check_writable(folder)
    if not save_effects:
        check_keeps_effects(folder)
    with err.status(f"loading {source.model}"):
        from sae_graphs.build import causal_graph
        from sae_graphs.resume import Partial

        instrumented = source.load()
    partial = Partial(partial_folder(folder), told=_resumed)
    effects = partial.folder / EFFECTS if save_effects else None
    started = time.perf_counter()
    try:
        with progress("ablating features") as report:
            result = causal_graph(
                instrumented,
                prompt,
                settings=settings,
                progress=report,
                resume=partial,
                effects=effects,
            )
        seconds = time.perf_counter() - started
        with err.status("drawing"):
            written = write_run(
                folder, result, formats=formats, seconds=seconds, saes=source.saes, effects=effects
            )
    except KeyboardInterrupt:
        if partial.n_kept:
            layers = f"{partial.n_kept} of {partial.n_layers} layers"
            err.print(f"{layers} are measured; run the same command again to go on from there")
        raise
    partial.remove()
    from sae_graphs import terminal

    terminal.print_graph(out, result, seconds=seconds)
    terminal.print_files(out, folder, written)


def _resumed(done: int, layers: int) -> None:
    err.print(f"resumed: {done} of {layers} layers were measured before", highlight=False)


def draw_again(
    folder: Path,
    chosen: dict[str, Any],
    out_folder: Path | None,
    formats: tuple[str, ...],
) -> None:
    """Draw saved effects with some settings chosen anew; no model is loaded."""
    from sae_graphs.effects_file import effects_beside, run_folder
    from sae_graphs.files import check_writable
    from sae_graphs.outputs import holds_effects, replot_folder, write_run
    from sae_graphs.replotting import replot

    folder = run_folder(folder)
    started = time.perf_counter()
    result = replot(folder, **chosen)
    seconds = time.perf_counter() - started
    target = out_folder or replot_folder(folder, chosen)
    whole = not {"layers", "pin"} & chosen.keys()  # else the effects are not all this graph's
    if not whole and holds_effects(target):
        raise SaeGraphsError(
            f"{target} holds the effects of all layers and features, which a graph of some would "
            "replace; give another folder with --out"
        )
    check_writable(target)
    effects = effects_beside(folder) if whole else None
    with err.status("drawing"):
        written = write_run(
            target,
            result,
            formats=formats,
            seconds=seconds,
            effects=effects,
            replotted_from=folder,
        )
    from sae_graphs import terminal

    terminal.print_graph(out, result, seconds=seconds, again=True)
    terminal.print_files(out, target, written)
