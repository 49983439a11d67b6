"""`sae-graphs edit --cases FILE`: many facts, one at a time, and a table of what came of them.

Nothing slow is imported before the file has been read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text as Words

from sae_graphs._version import __version__
from sae_graphs.cli.console import out, parts_kept, print_files, progress, resumable
from sae_graphs.cli.editing import print_left_out, taken, told_resumed, write_run
from sae_graphs.cli.options import Source
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.editing.cases_file import FactCase
    from sae_graphs.editing.covariance import Covariance, Text
    from sae_graphs.editing.many import Edits, LeftOut
    from sae_graphs.editing.scores import Scored
    from sae_graphs.editing.settings import EditSettings, Tuning
    from sae_graphs.model.language_model import LanguageModel


def edit_many(
    file: str,
    way: str,
    settings: EditSettings,
    source: Source,
    text: Path | None,
    out_folder: Path | None,
    prepend_bos: bool | None,
    limit: int | None,
    tuning: Tuning,
) -> None:
    """Read the cases, write each fact alone, ask, write the files, print."""
    from sae_graphs.editing.cases_file import read_cases
    from sae_graphs.editing.many import EditsPartial
    from sae_graphs.runs import (
        EDITS,
        check_of_one_kind,
        check_writable,
        partial_folder,
        slug_of,
        writing,
    )

    every = read_cases(file)
    cases = every[:limit]
    name = slug_of(Path(file).stem, "demo" if Path(file).stem == source.model else source.model)
    folder = out_folder or Path("outputs") / f"{name}-edits-{way}"
    check_writable(folder)
    check_of_one_kind(folder, EDITS)
    with writing(folder):
        model = source.load_model()
        partial = EditsPartial(partial_folder(folder), told=told_resumed)
        started = time.perf_counter()
        with resumable(lambda: parts_kept(partial, "facts are done")):
            from sae_graphs.editing.covariance import text_of

            texts = text_of(model, text, without=[case.subject for case in every])
            asked = (cases, file, way, settings, tuning)
            edits = _all(model, asked, source, texts, prepend_bos, partial)
        seconds = time.perf_counter() - started
        names = _write(folder, edits, seconds)
        partial.remove()
    _print(edits, seconds)
    print_files(out, folder, names)


def _all(
    model: LanguageModel,
    asked: tuple[Sequence[FactCase], str, str, EditSettings, Tuning],
    source: Source,
    texts: Text,
    prepend_bos: bool | None,
    partial: Any,
) -> Edits:
    from sae_graphs.checkpoint import run_key
    from sae_graphs.editing.many import edit_cases
    from sae_graphs.editing.scoring import Scorer
    from sae_graphs.editing.settings import FINE_TUNING
    from sae_graphs.schema import plain

    cases, file, way, settings, tuning = asked
    settings.layer_of(len(model.model.blocks))
    covariance = None if way == FINE_TUNING else taken(model, settings, texts)
    scorer = Scorer(
        model, settings, texts, covariance, way=way, tuning=tuning, prepend_bos=prepend_bos
    )
    facts = {
        "sae_graphs": __version__,
        "device": source.device,
        "dtype": source.dtype,
        "cases": plain(cases),
        "method": way,
        "settings": plain(scorer.settings),
        "tuning": plain(tuning),
        "text": plain(texts.facts),
        "prepend_bos": prepend_bos,
    }
    partial.begin(lambda: run_key(facts, model.model.named_parameters()), range(len(cases)))
    with progress(f"writing facts, {way}", unit="facts") as report:
        found = edit_cases(cases, scorer, partial=partial, progress=report)
    return _gathered(found, file, way, scorer, covariance, source.model)


def _gathered(
    found: Sequence[Scored | LeftOut],
    file: str,
    way: str,
    scorer: Any,
    covariance: Covariance | None,
    model: str,
) -> Edits:
    from sae_graphs.editing.many import Edits, LeftOut
    from sae_graphs.editing.scores import Scored
    from sae_graphs.schema import plain

    scored = tuple(it for it in found if isinstance(it, Scored))
    left_out = tuple(it for it in found if isinstance(it, LeftOut))
    if not scored:
        raise SaeGraphsError(
            f"no case of {file} fits {model}: {left_out[0].reason if left_out else 'none is there'}"
        )
    about: dict[str, Any] = {"seconds of an edit": _middle([it.seconds for it in scored])}
    if covariance is not None:
        about["covariance"] = f"{covariance.tokens:,} tokens of {covariance.text}"
    else:
        about["fine-tuning"] = plain(scorer.tuning)
    settings = plain(scorer.settings)
    return Edits(
        model,
        Path(file).name,
        way,
        scorer.layer,
        scored,
        left_out,
        settings,
        about,
        scorer.settings.seed,
    )


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _print(edits: Edits, seconds: float) -> None:
    from sae_graphs.editing.many_report import HEAD, rows_of, summary

    shown = Table(box=SIMPLE_HEAD, show_edge=False)
    for number, name in enumerate(HEAD):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in rows_of(edits):
        shown.add_row(*row)
    out.print(shown)
    out.print(Words(summary(edits), style="bold"), soft_wrap=True)
    print_left_out(edits.left_out, "edits.html")
    out.print(Words(f"edited in {seconds:.0f} s", style="dim"))


def _write(folder: Path, edits: Edits, seconds: float) -> tuple[str, ...]:
    from sae_graphs.editing.many import FILE_NAME
    from sae_graphs.editing.many_report import edits_files
    from sae_graphs.schema import record_bytes

    about = {
        "kind": "edits",
        "prompt": f"{counted(len(edits.scored), 'fact')} of {edits.cases}",
        "model": edits.model,
        "settings": {**edits.settings, "method": edits.method},
    }
    files = {FILE_NAME: record_bytes(edits), **edits_files(edits)}
    return write_run(folder, files, about, seconds)
