"""`sae-graphs contexts`: a text file or a dataset is read for the texts that features fire on.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sae_graphs.cli.console import err, out, progress, resumable
from sae_graphs.cli.options import Device, Dtype, Memory, Model, SaePattern, Saes, Source, basics
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.pretrained.corpora import Corpus

WITH_CONTEXTS = ("demo", "smollm2")  # models whose own SAEs have theirs
TOKENS = 1_000_000  # read of a dataset, which may have no end


def contexts(
    text: Annotated[
        Path | None, basics(help="A text file, read line by line (UTF-8).", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None,
        basics(
            help="A dataset's name on the Hugging Face hub, or a folder of data files.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None, basics(help="The dataset's configuration.", show_default=False)
    ] = None,
    split: Annotated[str | None, basics(help="Its split.", show_default="train")] = None,
    column: Annotated[
        str | None, basics(help="Its column.", show_default="text, or the first with text")
    ] = None,
    tokens: Annotated[
        int | None,
        basics(
            metavar="<int>",
            help="Tokens to read.",
            show_default=f"{TOKENS:,} of a dataset, all of a file",
            min=1,
        ),
    ] = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
) -> None:
    """Find the texts on which each feature fires most, to be shown in the graphs' boxes.

    Example: `sae-graphs contexts --text corpus.txt --model gpt2-small`

    A dataset is streamed: `sae-graphs contexts --dataset NeelNanda/pile-10k --model gpt2-small`.
    Your own: `sae-graphs contexts --text corpus.txt --model DIR --saes DIR`. When it is stopped,
    the same command goes on from there. Each feature's mean and density are kept, too.
    """
    if text is None and dataset is None:
        raise SaeGraphsError(
            "no text to find contexts in; expected a text file, such as --text corpus.txt, or a "
            "dataset's name or folder, such as --dataset NeelNanda/pile-10k"
        )
    if text is not None and dataset is not None:
        raise SaeGraphsError(
            f"--text {text} and --dataset {dataset} are both given; expected one of them: leave "
            "the other out"
        )
    if text is not None and not text.is_file():
        raise SaeGraphsError(f"no text file {text}; give a file of plain text")
    parts = {"--config": config, "--split": split, "--column": column}
    foreign = [name for name, value in parts.items() if value is not None]
    if text is not None and foreign:
        raise SaeGraphsError(f"{foreign[0]} is for a --dataset, and {text} is a text file")
    if model in WITH_CONTEXTS and saes is None:
        raise SaeGraphsError(
            "the bundled SAEs have their contexts, and these would replace them; copy "
            f"autoencoders/{model}/saes and give the copy with --saes"
        )
    from sae_graphs.pretrained.corpora import Corpus

    if text is not None:
        corpus = Corpus(str(text), is_dataset=False)
    else:
        corpus = Corpus(str(dataset), config=config, split=split or "train", column=column)
        tokens = tokens or TOKENS
    find_and_print(corpus, tokens, Source(model, saes, device, dtype, memory, sae_pattern))


def find_and_print(corpus: Corpus, tokens: int | None, source: Source) -> None:
    """Check the corpus, load, stream, print."""
    from sae_graphs.pretrained.corpora import check_corpus

    check_corpus(corpus)  # and a wrong name is known at once
    instrumented = source.load()
    from sae_graphs.features.store import Told, stream_store

    kept = 0

    def note(done: int) -> None:
        nonlocal kept
        kept = done

    def resumed(done: int) -> None:
        note(done)
        err.print(f"resumed: {done:,} tokens were read before", highlight=False)

    def refused(why: str) -> None:
        err.print(
            f"what an interrupted run left is not used: {why}; reading begins anew",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    with (
        resumable(lambda: f"{kept:,} tokens are done" if kept else ""),
        progress("reading", unit="bytes" if tokens is None else "tokens") as report,
    ):
        files = stream_store(
            instrumented,
            _counted(corpus, report) if tokens is None else corpus.texts,
            tokens=tokens,
            corpus=corpus.facts(),
            told=Told(
                lambda done: None if tokens is None else report(min(done, tokens), tokens),
                resumed,
                refused,
                note,
            ),
        )
    for file in files:
        out.print(str(file), highlight=False, markup=False, soft_wrap=True)


def _counted(
    corpus: Corpus, report: Callable[[int, int | None], None]
) -> Callable[[], Iterator[str]]:
    """The texts, of which the bytes read are reported."""

    def texts() -> Iterator[str]:
        done, size = 0, corpus.size
        for text in corpus.texts():
            done += len(text.encode("utf-8", "surrogatepass"))
            yield text
            report(done if size is None else min(done, size), size)

    return texts
