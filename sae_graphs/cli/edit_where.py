"""`sae-graphs edit --cases FILE --where`: facts written at every token and layer, and traced.

Nothing slow is imported before the file has been read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text as Words

from sae_graphs._version import __version__
from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable
from sae_graphs.cli.editing import print_left_out, taken, told_resumed, write_run
from sae_graphs.cli.options import Source
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.editing.cases_file import FactCase
    from sae_graphs.editing.covariance import Text
    from sae_graphs.editing.places import Places
    from sae_graphs.editing.settings import EditSettings
    from sae_graphs.model.language_model import LanguageModel

FORMATS = ("png", "svg", "html", "md")


def edit_everywhere(
    file: str,
    settings: EditSettings,
    source: Source,
    text: Path | None,
    out_folder: Path | None,
    prepend_bos: bool | None,
    limit: int | None,
) -> None:
    """Read the cases, write each fact everywhere, trace it, write the files, print."""
    from sae_graphs.editing.cases_file import check_has_s, read_cases
    from sae_graphs.editing.many import EditsPartial
    from sae_graphs.editing.places import Everywhere, sentences
    from sae_graphs.runs import (
        PLACES,
        check_of_one_kind,
        check_writable,
        partial_folder,
        slug_of,
        writing,
    )

    every = read_cases(file)
    cases = every[:limit]
    check_has_s(cases)
    name = slug_of(Path(file).stem, "demo" if Path(file).stem == source.model else source.model)
    folder = out_folder or Path("outputs") / f"{name}-edits-where"
    check_writable(folder)
    check_of_one_kind(folder, PLACES)
    with writing(folder):
        model = source.load_model()
        partial = EditsPartial(partial_folder(folder), Everywhere, told=told_resumed)
        started = time.perf_counter()
        with resumable(lambda: parts_kept(partial, "facts are done")):
            from sae_graphs.editing.covariance import text_of

            texts = text_of(model, text, without=[case.subject for case in every])
            places = _all(model, cases, file, settings, source, texts, prepend_bos, partial)
        seconds = time.perf_counter() - started
        with err.status("drawing"):
            names = _write(folder, places, seconds)
        partial.remove()
    for sentence in sentences(places):
        out.print(Words(sentence, style="bold"))
    print_left_out(places.left_out, "places.html")
    out.print(Words(f"edited in {seconds:.0f} s", style="dim"))
    print_files(out, folder, names)


def _all(
    model: LanguageModel,
    cases: Sequence[FactCase],
    file: str,
    settings: EditSettings,
    source: Source,
    texts: Text,
    prepend_bos: bool | None,
    partial: Any,
) -> Places:
    from dataclasses import replace

    from sae_graphs.checkpoint import run_key
    from sae_graphs.editing.many import LeftOut, edit_cases
    from sae_graphs.editing.places import Everywhere, Places
    from sae_graphs.editing.where import Sweep
    from sae_graphs.schema import plain

    n_layers = len(model.model.blocks)
    covariances = {
        layer: taken(model, replace(settings, layer=layer), texts) for layer in range(n_layers)
    }
    facts = {
        "sae_graphs": __version__,
        "device": source.device,
        "dtype": source.dtype,
        "cases": plain(cases),
        "settings": plain(settings),
        "text": plain(texts.facts),
        "prepend_bos": prepend_bos,
        "where": True,
    }
    partial.begin(lambda: run_key(facts, model.model.named_parameters()), range(len(cases)))
    sweep = Sweep(model, settings, texts, covariances, prepend_bos=prepend_bos)
    with progress("writing facts everywhere", unit="facts") as report:
        found = edit_cases(cases, sweep, partial=partial, progress=report)
    placed = tuple(it for it in found if isinstance(it, Everywhere))
    left_out = tuple(it for it in found if isinstance(it, LeftOut))
    if not placed:
        raise SaeGraphsError(
            f"no case of {file} fits {source.model}: {left_out[0].reason if left_out else '-'}"
        )
    kept = {name: it for name, it in plain(settings).items() if name not in ("layer", "token")}
    return Places(source.model, Path(file).name, n_layers, placed, left_out, kept, settings.seed)


def _write(folder: Path, places: Places, seconds: float) -> tuple[str, ...]:
    from sae_graphs.editing.places import FILE_NAME
    from sae_graphs.editing.places_report import places_files
    from sae_graphs.schema import record_bytes

    about = {
        "kind": "edits everywhere",
        "prompt": f"{counted(len(places.placed), 'fact')} of {places.cases}",
        "model": places.model,
        "settings": dict(places.settings),
    }
    files = {FILE_NAME: record_bytes(places), **places_files(places, FORMATS)}
    return write_run(folder, files, about, seconds)
