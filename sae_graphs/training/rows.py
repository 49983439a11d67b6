"""Text as rows of tokens: cut, cleaned of duplicates, shuffled, a part of it held out.

Rows are kept as one file, so that every stage, and every run that goes on, sees the same ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.training.plan import SHARD_ROWS, Plan

GROUP = 16  # rows of one text that are held out together, or not at all
MOST_READ = 20  # times the tokens that are wanted: as many are chosen from
AT_ONCE = 2**20  # characters that the tokenizer is given
BETWEEN = "\n\n"  # two texts


@dataclass(frozen=True)
class Rows:
    """Token ids `[N, T]`: those held out come first. `kinds` names the kind of text of each row."""

    ids: Tensor
    kind: Tensor  # [N], a number in `kinds`
    kinds: tuple[str, ...]
    held_out: int

    @property
    def measured(self) -> Tensor:
        """The rows that are held out, `[N, T]`."""
        return self.ids[: self.held_out]


def rows_file(progress: Path) -> Path:
    """Where the rows lie, below the folder of a training's progress."""
    return progress / "rows.safetensors"


def read_rows(file: Path) -> Rows | None:
    """The rows in a file; None where there is none, or it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads(opened.metadata()["about"])
            ids, kind = opened.get_tensor("ids"), opened.get_tensor("kind")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return Rows(ids.long(), kind.long(), tuple(about["kinds"]), int(about["held_out"]))


def make_rows(
    texts: Iterable[tuple[str, str]],
    tokenizer: Any,
    plan: Plan,
    *,
    bos: int | None,
    told: Callable[[int], None] = lambda tokens: None,
) -> Rows:
    """Rows from pairs of a text's kind and the text, each behind `bos` where there is one.

    `told` hears how many tokens were read. Raises `SaeGraphsError` where they are too few.
    """
    kinds: dict[str, int] = {}
    groups: list[list[tuple[int, list[int]]]] = []
    seen: set[bytes] = set()
    n_read = 0
    most = MOST_READ * (plan.tokens + plan.held_out)
    for kind, ids in _cut(texts, tokenizer, plan.context - (bos is not None)):
        n_read += len(ids)
        told(n_read)
        key = torch.tensor(ids, dtype=torch.int32).numpy().tobytes()
        if key not in seen:
            seen.add(key)
            number = kinds.setdefault(kind, len(kinds))
            if not groups or groups[-1][0][0] != number or len(groups[-1]) == GROUP:
                groups.append([])
            groups[-1].append((number, ids if bos is None else [bos, *ids]))
        if n_read >= most:
            break
    chosen = _chosen(groups, plan)
    return Rows(
        torch.tensor([ids for _, ids in chosen]),
        torch.tensor([number for number, _ in chosen]),
        tuple(kinds),
        plan.held_out_rows,
    )


def save_rows(rows: Rows, file: Path) -> None:
    """Write rows in one step."""
    about = {"kinds": list(rows.kinds), "held_out": rows.held_out}
    tensors = {"ids": rows.ids.int(), "kind": rows.kind.short()}
    write_atomically(file, save(tensors, metadata={"about": json.dumps(about)}))


# -- inside ----------------------------------------------------------------------------------------


def _cut(
    texts: Iterable[tuple[str, str]], tokenizer: Any, length: int
) -> Iterator[tuple[str, list[int]]]:
    """Pieces of `length` tokens; texts of a kind follow each other, and what is left is dropped."""
    kind: str | None = None
    left: list[int] = []
    for of_kind, text in _pieces(texts):
        if of_kind != kind:
            kind, left = of_kind, []
        left += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        whole = len(left) // length * length
        yield from ((of_kind, left[at : at + length]) for at in range(0, whole, length))
        left = left[whole:]


def _pieces(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Texts of one kind joined until they are worth a call of the tokenizer."""
    kind, size = "", 0
    held: list[str] = []
    for of_kind, text in texts:
        if held and (of_kind != kind or size > AT_ONCE):
            yield kind, "".join(held)
            held, size = [], 0
        kind = of_kind
        held.append(text)
        size += len(text)
    if held:
        yield kind, "".join(held)


def _chosen(groups: list[list[tuple[int, list[int]]]], plan: Plan) -> list[tuple[int, list[int]]]:
    """The rows that are held out, whole groups of neighbours; then those to train on. Shuffled."""
    there = sum(map(len, groups))
    if there < plan.rows + plan.held_out_rows:
        most = (there - plan.held_out_rows) // SHARD_ROWS * SHARD_ROWS * (plan.context - 1)
        instead = f"; give more, or --tokens {most}" if most > 0 else "; give more"
        raise SaeGraphsError(
            f"the text holds {there * (plan.context - 1):,} tokens in rows that differ, and "
            f"{plan.tokens:,} are wanted, {plan.held_out:,} more to measure on{instead}"
        )
    source = random.Random(plan.seed)
    source.shuffle(groups)
    measured: list[tuple[int, list[int]]] = []
    while len(measured) < plan.held_out_rows:
        measured += groups.pop()
    trained = [row for group in groups for row in group]
    source.shuffle(measured)
    source.shuffle(trained)
    return [*measured[: plan.held_out_rows], *trained[: plan.rows]]
