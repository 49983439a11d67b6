"""What `sae-graphs edit` does once its arguments are checked: write a fact, hear, show.

Nothing slow is imported before that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text as Words

from sae_graphs.cli.console import err, out, print_files, progress, warn
from sae_graphs.cli.drawing import told_of_another
from sae_graphs.cli.options import Source
from sae_graphs.text import visible
from sae_graphs.words import counted, probability, said

if TYPE_CHECKING:
    from sae_graphs.editing.covariance import Covariance, Text
    from sae_graphs.editing.many import LeftOut
    from sae_graphs.editing.record import Edit
    from sae_graphs.editing.report import Written
    from sae_graphs.editing.settings import EditSettings
    from sae_graphs.model.language_model import LanguageModel

ENDING = "-edit"
GOES_ON = 20  # tokens that the model writes, before and after
SHOWN = 4  # next tokens on the terminal
LEFT_SHOWN = 3  # cases that were left out


class Fact(NamedTuple):
    """What is to be written."""

    subject: str
    prompt: str
    target: str


def edit_one(
    fact: Fact,
    settings: EditSettings,
    source: Source,
    text: Path | None,
    out_folder: Path | None,
    prepend_bos: bool | None,
    *,
    inside: bool = False,
) -> None:
    """Load, write the fact, hear the model before and after, write the files, print."""
    from sae_graphs.runs import EDIT, check_of_one_kind, check_writable, folder_for, writing

    asked = fact.prompt.replace("{}", fact.subject)
    folder = out_folder or folder_for(
        Path("outputs"), f"{asked} {fact.target}", source.model, None, ending=ENDING
    )
    check_writable(folder)
    check_of_one_kind(folder, EDIT)
    told_of_another(folder, f"{asked} {fact.target}")
    with writing(folder):
        model = source.load() if inside else source.load_model()
        from sae_graphs.editing.covariance import text_of
        from sae_graphs.editing.edit import edit

        settings.layer_of(len(model.model.blocks))
        started = time.perf_counter()
        texts = text_of(model, text)
        covariance = taken(model, settings, texts)
        with progress("finding the value", unit="steps") as report:
            made = edit(
                model,
                subject=fact.subject,
                prompt=fact.prompt,
                target=fact.target,
                settings=settings,
                texts=text,
                covariance=covariance,
                prepend_bos=prepend_bos,
                progress=report,
            )
        with err.status("writing on"):
            shown = [_written(model, asked, [made], prepend_bos)]
        seconds = time.perf_counter() - started
        more, seen = _seen_inside(model, made, prepend_bos) if inside else ({}, "")
        names = _write(folder, made, shown, source.model, seconds, more)
    from sae_graphs.editing.report import summary

    out.print(Words(summary(made), style="bold"), soft_wrap=True)
    _print_texts(shown)
    if seen:
        out.print(Words(seen))
    for warning in made.warnings:
        warn(visible(warning, space=" "))
    out.print(Words(f"edited in {seconds:.1f} s", style="dim"))
    print_files(out, folder, names)


def _seen_inside(
    model: LanguageModel, made: Edit, prepend_bos: bool | None
) -> tuple[dict[str, bytes], str]:
    """The files on what the edit does inside, both graphs among them, and what they say."""
    from sae_graphs.editing.inside import inside
    from sae_graphs.editing.inside_report import inside_files, summary
    from sae_graphs.graph.node_link import to_bytes as graph_bytes
    from sae_graphs.model.instrument import with_saes

    with err.status("looking inside"):
        found = inside(with_saes(model), made, prepend_bos=prepend_bos)
        files = inside_files(found)
    for side, graph in (("before", found.before), ("after", found.after)):
        files[f"inside-{side}.json"] = graph_bytes(graph.parts)
    return files, summary(found)


def taken(model: LanguageModel, settings: EditSettings, text: Text) -> Covariance:
    """The covariance of the layer that is edited, under a bar."""
    from sae_graphs.editing.covariance import covariance_of

    def told(line: str) -> None:
        err.print(line, highlight=False, markup=False, soft_wrap=True)

    layer = settings.layer_of(len(model.model.blocks))
    with progress("covariance", unit="tokens") as report:
        return covariance_of(model, layer, text, settings.tokens, progress=report, told=told)


def hear_edits(
    prompt: str, files: Sequence[Path], source: Source, prepend_bos: bool | None
) -> None:
    """What comes after a prompt without some saved edits, and with all of them."""
    from sae_graphs.editing.record import load

    edits = [load(file) for file in files]
    model = source.load_model()
    shown = _written(model, prompt, edits, prepend_bos)
    rows = []
    for found in (_next(model, prompt, [], prepend_bos), _next(model, prompt, edits, prepend_bos)):
        words = ", ".join(f"{said(token)} {probability(p)}" for token, p in found[:SHOWN])
        rows.append(words)
    out.print(Words(f"before: {rows[0]}"), soft_wrap=True)
    out.print(Words(f"after:  {rows[1]}", style="bold"), soft_wrap=True)
    _print_texts([shown])


def _next(
    model: LanguageModel, prompt: str, edits: Sequence[Edit], prepend_bos: bool | None
) -> tuple[tuple[str, float], ...]:
    from sae_graphs.model.next_token import next_tokens

    with ExitStack() as held:
        for each in edits:
            held.enter_context(each.applied(model))
        run = model.run(prompt, prepend_bos=prepend_bos)
        return next_tokens(model, run, len(run) - 1)


def _written(
    model: LanguageModel, prompt: str, edits: Sequence[Edit], prepend_bos: bool | None
) -> Written:
    """How the model goes on without the edits, and with them."""
    from sae_graphs.editing.generate import continued, text_of_ids
    from sae_graphs.editing.report import Written

    ids = model.tokenize(prompt, prepend_bos=prepend_bos)
    (before,) = continued(model, [ids], GOES_ON)
    with ExitStack() as held:
        for each in edits:
            held.enter_context(each.applied(model))
        (after,) = continued(model, [ids], GOES_ON)
    return Written(prompt, text_of_ids(model, before), text_of_ids(model, after))


def _print_texts(texts: Sequence[Written]) -> None:
    for it in texts:
        for name, words in (("before", it.before), ("after", it.after)):
            line = Words(f"{name:>6}: ", style="dim")
            line.append(visible(it.prompt, space=" "), style="dim")
            line.append(visible(words, space=" "), style="bold" if name == "after" else "")
            out.print(line, soft_wrap=True)


def _write(
    folder: Path,
    made: Edit,
    texts: Sequence[Written],
    model: str,
    seconds: float,
    more: Mapping[str, bytes],
) -> tuple[str, ...]:
    from sae_graphs.editing.record import FILE_NAME, to_bytes
    from sae_graphs.editing.report import edit_files
    from sae_graphs.schema import plain

    files = {FILE_NAME: to_bytes(made), **edit_files(made, texts), **more}
    about = {
        "kind": "edit",
        "prompt": f"{made.asked} {made.target}",
        "model": model,
        "saes_given": None,
        "sae_pattern_given": None,
        "settings": plain(made.settings),
    }
    return write_run(folder, files, about, seconds)


def write_run(
    folder: Path, files: Mapping[str, bytes], about: Mapping[str, Any], seconds: float
) -> tuple[str, ...]:
    """The files and their `run.json` in place of the run that was there; returns their names."""
    from sae_graphs.runs import RECORD, made_with, replace_folder

    names = (*files, RECORD)
    record = {**about, "seconds": round(seconds, 4), **made_with(), "files": list(names)}
    replace_folder(folder, {**files, RECORD: (json.dumps(record, indent=1) + "\n").encode()})
    return names


def told_resumed(done: int, cases: int) -> None:
    """A line for a run that goes on where it was interrupted."""
    err.print(f"resumed: {done} of {cases} facts were done before", highlight=False)


def print_left_out(left_out: Sequence[LeftOut], page: str) -> None:
    """The first cases that were left out, and how many more."""
    for left in left_out[:LEFT_SHOWN]:
        warn(visible(f"left out: {left.asked}: {left.reason}", space=" "))
    if len(left_out) > LEFT_SHOWN:
        warn(f"{counted(len(left_out) - LEFT_SHOWN, 'more case')} left out: see {page}")
