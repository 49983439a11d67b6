"""`python -m benchmarks.reproduce_gpt2_small`: the method's source's tables, measured again.

On a machine with internet this fetches GPT-2 small and its 13 SAEs, recomputes what the source
published, and prints ours beside it, with a verdict for each table.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks.progress import write_text
from benchmarks.published import FILE, read_published
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from benchmarks.reproduction_tables import Part

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
    """Recompute the source's tables on GPT-2 small, and print ours beside what was published."""
    from sae_graphs.validation_settings import ValidationSettings

    settings = ValidationSettings(controls=controls, snippets=snippets, seed=seed)
    published = read_published(data)
    import sae_graphs as sg
    from benchmarks.reproduction import measure
    from benchmarks.reproduction_case import VARIANTS
    from benchmarks.reproduction_tables import parts, reproduces
    from sae_graphs.background import bundled_texts
    from sae_graphs.corpora import texts_of

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
        write_text(json_file, text_of + "\n")
    if markdown is not None:
        write_text(markdown, _page(head, tables))


def _page(head: list[str], tables: list[Part]) -> str:
    """All tables as one Markdown page."""
    page = ["# GPT-2 small: ours beside what was published", "", *(f"- {line}" for line in head)]
    return "\n".join(page) + "\n\n" + "\n".join(table.markdown() for table in tables)


if __name__ == "__main__":
    try:
        typer.run(main)
    except SaeGraphsError as mistake:
        Console(stderr=True).print(f"error: {mistake}", markup=False, style="red", soft_wrap=True)
        sys.exit(2)
