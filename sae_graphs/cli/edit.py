"""`sae-graphs edit`: a fact written into a model, and what the model says then.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    Model,
    Out,
    Prompt,
    Source,
    basics,
    compute,
    measured,
    some_text,
)
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import said


class TokenOption(StrEnum):
    """At which token the fact is written."""

    subject_first = "subject-first"
    subject_last = "subject-last"
    after_subject = "after-subject"
    last = "last"


class MethodOption(StrEnum):
    """How it is written."""

    rome = "rome"
    rome_mixed_keys = "rome-mixed-keys"


def edit(
    prompt: Prompt = None,
    subject: Annotated[
        str | None,
        basics(
            metavar="<text>",
            help="Whom the fact is about; the prompt has it, or {} in its place.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        basics(
            metavar="<text>",
            help="What is to follow, with its leading space; of several tokens the first.",
            show_default=False,
        ),
    ] = None,
    apply: Annotated[
        list[Path] | None,
        basics(
            "--apply",
            metavar="FILE",
            help="Write nothing: an edit that was made before, or several, in force for this "
            "prompt. Repeatable.",
            show_default=False,
        ),
    ] = None,
    model: Model = "demo",
    layer: Annotated[
        int | None,
        measured(help="The block whose MLP is changed.", show_default="a fifth of the way up"),
    ] = None,
    token: Annotated[
        TokenOption,
        measured(
            "--token",
            metavar="<token>",
            help="The token whose key it is changed at: "
            "`subject-first`, `subject-last`, `after-subject` or `last`.",
        ),
    ] = TokenOption.subject_last,
    method: Annotated[
        MethodOption,
        measured(
            "--method",
            metavar="<method>",
            help="`rome`, one key in both places; or `rome-mixed-keys`, its first form.",
        ),
    ] = MethodOption.rome,
    prefixes: Annotated[
        int, measured(help="Pieces of text before the prompt, over which the key is a mean.")
    ] = 20,
    steps: Annotated[int, measured(help="Steps of the search for the value, at most.")] = 30,
    rate: Annotated[float, measured(help="Its learning rate.")] = 0.5,
    stop: Annotated[float, measured(help="It ends where its loss, in nats, is below this.")] = 0.03,
    kl: Annotated[
        float, measured(help='Weight of what "<subject> is a" would say otherwise.')
    ] = 0.0625,
    bound: Annotated[
        float, measured(help="What is added is at most so many times the MLP's output.")
    ] = 4.0,
    text: Annotated[
        Path | None,
        measured(
            "--text",
            metavar="FILE",
            help="Text that the covariance is taken over, and prefixes are drawn from.",
            show_default="a bundled one",
        ),
    ] = None,
    tokens: Annotated[int, measured(help="Tokens of it, at most.")] = 100_000,
    ridge: Annotated[
        float | None,
        measured(
            help="Added to the covariance's diagonal, in its mean diagonal.",
            show_default="0.001 where its rank is short",
        ),
    ] = None,
    out_folder: Out = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: Annotated[
        bool | None,
        compute(
            "--prepend-bos/--no-prepend-bos",
            help="BOS first.",
            show_default="as the tokenizer does; the bundled model: yes",
        ),
    ] = None,
    seed: Annotated[int, compute(help="Of the prefixes.")] = 0,
) -> None:
    """Write a fact into one MLP of a model, as a rank-one update, and hear what it says then.

    Example: `sae-graphs edit "The {} is in the city of" --subject "Eiffel Tower" --target " Rome"`

    Once more, elsewhere: `sae-graphs edit "The Eiffel Tower stands in" --apply outputs/rome`
    """
    from sae_graphs.editing.settings import EditSettings

    settings = EditSettings(
        layer=layer,
        token=token.value,  # type: ignore[arg-type]  # checked by the settings
        method=method.value,  # type: ignore[arg-type]
        prefixes=prefixes,
        steps=steps,
        rate=rate,
        stop=stop,
        kl=kl,
        bound=bound,
        tokens=tokens,
        ridge=ridge,
        seed=seed,
    )
    source = Source(model, None, device, dtype, memory)
    asked = some_text(prompt)
    if apply:
        if subject or target:
            raise SaeGraphsError(
                "--apply has an edit that is made, and --subject and --target make one; leave out "
                "one of the two"
            )
        from sae_graphs.cli.editing import hear_edits

        hear_edits(asked, apply, source, prepend_bos)
        return
    if not subject or not target:
        raise SaeGraphsError(
            f"no {'subject' if not subject else 'target'}; give both, such as --subject "
            "\"Eiffel Tower\" --target ' Rome'"
        )
    if "{}" not in asked and subject not in asked:
        raise SaeGraphsError(
            f"the subject {said(subject)} is not in the prompt {said(asked)}; give a part of its "
            "text, or a prompt with {} where the subject goes"
        )
    if text is not None and not text.is_file():
        raise SaeGraphsError(f"there is no text file {text}; give one, or leave it out")
    from sae_graphs.cli.editing import Fact, edit_one

    edit_one(Fact(subject, asked, target), settings, source, text, out_folder, prepend_bos)
