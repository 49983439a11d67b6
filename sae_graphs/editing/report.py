"""An edit as one page, and in Markdown: what was written, what the model says then. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sae_graphs.editing.record import Answer, Edit
from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Fold,
    Heading,
    Paragraph,
    table,
    text,
)
from sae_graphs.render.document.written import documents
from sae_graphs.text import visible
from sae_graphs.words import counted, plain, probability, said, share

STEM = "edit"
SHOWN = 6  # next tokens


class Written(NamedTuple):
    """A text that the model goes on with, before the edit and after it."""

    prompt: str
    before: str
    after: str


def edit_files(edit: Edit, texts: Sequence[Written]) -> dict[str, bytes]:
    """The page and its Markdown, by name; the same edit gives the same bytes."""
    return documents(STEM, _cover(edit), list(_blocks(edit, texts)))


def summary(edit: Edit) -> str:
    """What came of it, in a sentence."""
    before, after = (probability(it.probability) for it in (edit.before, edit.after))
    first, likeliest = said(edit.target), edit.after.next_tokens[0][0]
    now = "the likeliest" if likeliest == edit.target else f"{said(likeliest)} is likelier"
    return f"{first} after {said(edit.asked)}: {before} before, {after} after; {now}"


def _cover(edit: Edit) -> Cover:
    about = f"model {edit.model} · block {edit.layer} · {edit.settings.method}"
    return Cover("Edit of", "Edit", f"{edit.asked}{edit.target}", about, edit.warnings)


def _blocks(edit: Edit, texts: Sequence[Written]) -> Iterator[Block]:
    yield Paragraph(f"{summary(edit)}.", "verdict")
    yield Heading("What comes next")
    yield from _next_tokens(edit.before, edit.after)
    if texts:
        yield Heading("What the model writes")
        rows = [
            (text(visible(it.prompt, space=" ")), *(text(visible(t, space=" ")) for t in it[1:]))
            for it in texts
        ]
        yield from table("The likeliest token each time.", ("Prompt", "Before", "After"), rows)
    yield Fold("How it was made", (_made(edit),))


def _next_tokens(before: Answer, after: Answer) -> Iterator[Block]:
    rows = [
        (*_token(one), *_token(two))
        for one, two in zip(before.next_tokens[:SHOWN], after.next_tokens[:SHOWN], strict=True)
    ]
    yield from table("The likeliest next tokens.", ("Before", "p", "After", "p"), rows)


def _token(found: tuple[str, float]) -> tuple[Cell, Cell]:
    return Cell(found[0], token=True), Cell(probability(found[1]), number=True)


def _made(edit: Edit) -> Definitions:
    about, settings = edit.about, edit.settings
    taken = about.get("covariance", {})
    entries = [
        ("block", str(edit.layer)),
        ("key", f"at the {settings.token.replace('-', ' ')} token, over "
         f"{counted(int(about.get('prompts', 1)), 'prompt')}"),
        ("covariance", f"{taken.get('inputs')} x {taken.get('inputs')}, of "
         f"{taken.get('tokens', 0):,} tokens of {taken.get('text')}; rank {taken.get('rank')}"),
        ("value", f"{counted(len(edit.surprisal), 'step')}; the target's surprisal "
         f"{plain(edit.surprisal[0])} to {plain(edit.surprisal[-1])} nats; what is added is "
         f"{plain(about.get('change_over_output', 0.0))} times the MLP's output there"),
        ("size", f"{share(about.get('update_over_weights'))} of the matrix's norm"),
        ("fits weights", edit.weights),
    ]  # fmt: skip
    return Definitions("Settings and sizes", tuple(entries))
