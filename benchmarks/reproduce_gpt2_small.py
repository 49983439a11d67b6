"""`python -m benchmarks.reproduce_gpt2_small`: the method's source's tables, measured again.

On a machine with internet this fetches GPT-2 small and its 13 SAEs, recomputes what the source
published, and prints ours beside it, with a verdict for each table.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks.progress import write_text
from benchmarks.published import FILE, read_published
from sae_graphs.cli import STOPPED, ClickError, given_words
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from benchmarks.reproduction_tables import Part

PROGRAM = "python -m benchmarks.reproduce_gpt2_small"
WIDTH = 120  # columns of the tables, where it is no terminal
SCHEMA = "sae_graphs/reproduction/1"


def main(
    model: Annotated[str, typer.Option(help="A model's name, or its folder.")] = "gpt2-small",
    saes: Annotated[
        str | None,
        typer.Option(help="A release, or a folder of SAEs.", show_default="the model's own"),
    ] = None,
    data: Annotated[Path, typer.Option(help="What was published.", show_default=FILE.name)] = FILE,
    controls: Annotated[int, typer.Option(help="Matched controls for each path.")] = 200,
    snippets: Annotated[int, typer.Option(help="Pieces of other text.")] = 32,
    text: Annotated[
        str | None,
        typer.Option(
            help="Other text: a file, or a dataset's name.", show_default="the bundled corpus"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, or another precision.")] = "float32",
    memory: Annotated[str | None, typer.Option(help="Memory to stay within, as 4GiB.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables.")] = None,
) -> None:
    """Recompute the source's tables on GPT-2 small, and print ours beside what was published.

    Example: `python -m benchmarks.reproduce_gpt2_small --json ours.json --markdown ours.md`

    Needs a network the first time: it downloads 2.5 GB, GPT-2 small and its 13 SAEs, and then runs
    for about 15 minutes on one core.
    """
    from sae_graphs.validation.settings import ValidationSettings

    _check_files(json_file, markdown)
    settings = ValidationSettings(controls=controls, snippets=snippets, seed=seed)
    published = read_published(data)
    import sae_graphs as sg
    from benchmarks.reproduction import measure
    from benchmarks.reproduction_case import VARIANTS
    from benchmarks.reproduction_tables import parts, reproduces
    from sae_graphs.pretrained.corpora import texts_of
    from sae_graphs.validation.background import bundled_texts

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    started = time.perf_counter()

    def texts() -> Iterable[str]:
        return bundled_texts() if text is None else texts_of(text)

    if next(iter(texts()), None) is None:  # and a wrong name is known at once
        raise SaeGraphsError(f"{text} holds no text; give a file or dataset with some")
    err = Console(stderr=True)
    with err.status("loading") as status:

        def told(part: str) -> None:
            status.update(escape(part))
            if not err.is_terminal:
                err.print(f"{time.perf_counter() - started:6.0f} s: {part}", markup=False)

        loaded = sg.load(model, saes=saes, device=device, dtype=dtype, memory=memory)
        in_memory = time.perf_counter() - started
        found = measure(loaded, published, settings=settings, texts=texts, told=told)
    seconds = time.perf_counter() - started
    tables = parts(found, published)
    head = [
        reproduces(found),
        f"model {loaded.name}, SAEs {loaded.stack.name}, {device}, {dtype}; "
        f"{seconds:.0f} s, {in_memory:.0f} s of it to load",
        *(f"{variant.name}: {variant.words}" for variant in VARIANTS),
        f"published: {published.source}",
    ]
    for line in head:
        console.print(line, markup=False, highlight=False)
    for table in tables:
        console.print(table.rich(), highlight=False)
    described = {
        "schema": SCHEMA,
        "model": loaded.name,
        "saes": loaded.stack.name,
        "device": device,
        "dtype": dtype,
        "seconds": seconds,
        "settings": dict(settings.to_json()),
    }
    if json_file is not None:
        shown = {"head": head, "tables": [table.to_json() for table in tables], "found": found}
        text_of = json.dumps({**described, **shown}, indent=1, ensure_ascii=False)
        _write(json_file, text_of + "\n")
    if markdown is not None:
        _write(markdown, _page(head, tables))


def _check_files(*files: Path | None) -> None:
    """Fail before the work, not after it; folders are not made here."""
    given = [file for file in files if file is not None]
    for file in given:
        if file.is_dir():
            raise SaeGraphsError(f"{file} is a folder; give a file to write")
        if not file.parent.is_dir():
            raise SaeGraphsError(f"cannot write {file}: there is no folder {file.parent}")
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise SaeGraphsError(f"cannot write {file}: {file.parent} may not be written to")
    if len({file.resolve() for file in given}) < len(given):
        raise SaeGraphsError(f"{given[0]} is given for both --json and --markdown; give two files")


def _write(file: Path, text: str) -> None:
    try:
        write_text(file, text)
    except OSError as problem:
        raise SaeGraphsError(f"cannot write {file}: {problem.strerror or problem}") from problem


def _page(head: list[str], tables: list[Part]) -> str:
    """All tables as one Markdown page."""
    page = ["# GPT-2 small: ours beside what was published", "", *(f"- {line}" for line in head)]
    return "\n".join(page) + "\n\n" + "\n".join(table.markdown() for table in tables)


def run() -> None:
    """Exit 0 done, 2 the user's mistake in one line, 130 stopped."""
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command()(main)
    try:
        code = app(standalone_mode=False, prog_name=PROGRAM)
    except SaeGraphsError as mistake:
        _fail(str(mistake))
    except ClickError as mistake:
        _fail(f"{mistake.format_message().rstrip('.')}{given_words(mistake)}; see {PROGRAM} --help")
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    if code == STOPPED:
        Console(stderr=True).print("stopped; nothing is written")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    line = f"error: {' '.join(message.split())}"
    Console(stderr=True).print(line, markup=False, highlight=False, style="red", soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    run()
