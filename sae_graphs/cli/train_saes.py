"""`sae-graphs train-saes`: SAEs for a model that has none, from a text of one's own.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sae_graphs.cli.console import err, out, progress, resumable
from sae_graphs.cli.options import (
    Device,
    Memory,
    Model,
    basics,
    compute,
    fetching_under,
    output,
)
from sae_graphs.cli.options import measured as trained
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.model.language_model import LanguageModel

WIDER = 4  # times as many features as the stream has dimensions, where no number is given


def train_saes(
    model: Model = "demo",
    layers: Annotated[
        str | None,
        basics(
            metavar="<blocks>",
            help="After which blocks SAEs stand: 0,5,10; two or more.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        basics(
            help="A text file or a folder of them (UTF-8); sub-folders are kinds of text.",
            show_default=False,
        ),
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
        int, trained(metavar="<int>", help="Different tokens to train on.")
    ] = 2_000_000,
    held_out: Annotated[
        int, trained(metavar="<int>", help="Further tokens, to measure on.", min=1)
    ] = 40_000,
    passes: Annotated[
        float, trained(metavar="<float>", help="How often each token is trained on.")
    ] = 3,
    features: Annotated[
        int | None,
        trained(
            metavar="<int>", help="Features of each SAE.", show_default="4 x the model's width"
        ),
    ] = None,
    active: Annotated[
        int, trained(metavar="<int>", help="Features that are active at a token: k of TopK.")
    ] = 32,
    context: Annotated[
        int, trained(metavar="<int>", help="Tokens that the model sees at once.")
    ] = 128,
    rate: Annotated[float, trained(metavar="<float>", help="Learning rate.")] = 1e-3,
    seed: Annotated[int, compute(help="Everything random follows from it.")] = 0,
    folder: Annotated[
        Path | None, output("--out", help="Folder to write.", show_default="outputs/saes-<model>")
    ] = None,
    device: Device = "cpu",
    memory: Memory = None,
) -> None:
    """Train an SAE after some of a model's blocks, and measure how faithful they are.

    Example: `sae-graphs train-saes --model smollm2 --layers 5,15,25 --text corpus/`

    It says first how long it will take, and how much of the disk. When it is stopped, the same
    command goes on from there; started twice, the two share the work. Built on sae-lens, whose
    format the SAEs have.
    """
    source = _source(text, dataset, {"--config": config, "--split": split, "--column": column})
    blocks = _blocks(layers)
    from sae_graphs.training.texts import Texts  # checks what it is given; torch is not needed

    texts = Texts(source, dataset is not None, config, split or "train", column)
    asked: dict[str, Any] = {"tokens": tokens, "held_out": held_out, "passes": passes}
    asked |= {"active": active, "context": context, "rate": rate, "seed": seed}
    place = folder or Path("outputs") / f"saes-{_slug(model)}"
    loaded = _load(model, device, memory)
    from sae_graphs.training.plan import Plan
    from sae_graphs.training.train import Told
    from sae_graphs.training.train import train_saes as train

    width = int(loaded.model.cfg.d_model)
    names = tuple(f"blocks.{block}.hook_resid_post" for block in blocks)
    plan = Plan(names, features=features or WIDER * width, **asked)
    say = Told(
        lambda line: err.print(line, highlight=False, markup=False, soft_wrap=True), progress
    )
    with resumable(lambda: "what is done is kept"):
        found = train(loaded, plan, texts, place, told=say)
    print_evaluation(found)
    _print_next(model, place)


def print_evaluation(found: dict[str, Any]) -> None:
    """The table of the evaluation, and what its columns are."""
    from rich.table import Table

    table = Table(title=f"on {found['tokens']:,} tokens that were held out")
    for name in ("SAE", "FVU", "L0", "dead", "CE recovered"):
        table.add_column(name, justify="left" if name == "SAE" else "right")
    for layer in found["layers"]:
        table.add_row(
            layer["hook_name"],
            f"{layer['fvu']:.3f}",
            f"{layer['l0']:.1f}",
            f"{layer['dead_percent']:.1f} %",
            f"{layer['ce_recovered']:.3f}",
        )
    out.print(table)
    out.print(
        "FVU: share of the variance left unexplained. L0: features active at a token. Dead: never "
        "active there. CE recovered: of what zeros in the stream's place cost the next token's "
        "cross-entropy, the share that the SAE's output wins back.",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _print_next(model: str, place: Path) -> None:
    command = ["sae-graphs", "graph", "The Eiffel Tower is in the city of", "--model", model]
    command += ["--saes", str(place / "saes")]
    say: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    out.print("\nA graph with them:\n  " + shlex.join(command), **say)
    out.print(f"Not needed any longer: {place / '.progress'}, with the activations.", **say)


def _source(text: Path | None, dataset: str | None, parts: dict[str, str | None]) -> str:
    """The text or the dataset, of which one must be given."""
    if text is None and dataset is None:
        raise SaeGraphsError(
            "no text to train on; expected a file or a folder of plain text, such as --text "
            "corpus/, or a dataset's name or folder, such as --dataset NeelNanda/pile-10k"
        )
    if text is not None and dataset is not None:
        raise SaeGraphsError(
            f"--text {text} and --dataset {dataset} are both given; expected one of them: leave "
            "the other out"
        )
    foreign = [name for name, value in parts.items() if value is not None]
    if text is not None and foreign:
        raise SaeGraphsError(f"{foreign[0]} is for a --dataset, and {text} is plain text")
    return str(text if dataset is None else dataset)


def _blocks(layers: str | None) -> list[int]:
    """The blocks in `0,5,10`, in order. Raises `SaeGraphsError` where there are fewer than two."""
    parts = [part.strip() for part in (layers or "").split(",")]
    if layers is None or not all(re.fullmatch(r"\d+", part) for part in parts):
        given = "no layers are given" if layers is None else f"layers {layers!r}"
        raise SaeGraphsError(f"{given}; expected blocks' numbers, such as --layers 0,5,10")
    if len(set(parts)) < len(parts) or len(parts) < 2:
        raise SaeGraphsError(
            f"layers {layers!r}; expected two or more different blocks: a graph's edges run from "
            "one SAE to the next"
        )
    return sorted(map(int, parts))


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-.") or "model"


def _load(model: str, device: str, memory: str | None) -> LanguageModel:
    with err.status(f"loading {model}") as status:
        from sae_graphs.pretrained.loading import load_model

        return load_model(model, device=device, memory=memory, fetching=fetching_under(status))
