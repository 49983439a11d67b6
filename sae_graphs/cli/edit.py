"""`sae-graphs edit`: a fact written into a model, and what the model says then.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    Model,
    Out,
    Prompt,
    Saes,
    Source,
    basics,
    compute,
    measured,
    output,
    some_text,
)
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.words import said

# What says how a prompt is heard, with edits that are made.
HEARD_WITH = frozenset({"--apply", "--model", "--device", "--dtype", "--memory", "--prepend-bos"})


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
    fine_tuning = "fine-tuning"


def edit(
    context: typer.Context,
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
    cases: Annotated[
        str | None,
        basics(
            metavar="FILE",
            help="Many facts, one at a time, and a table of metrics: JSONL in CounterFact's "
            "fields; `demo`, `demo-development` and `smollm2` are bundled.",
            show_default=False,
        ),
    ] = None,
    first: Annotated[
        int | None,
        basics("--first", help="So many of the cases.", show_default="all", min=1),
    ] = None,
    where: Annotated[
        bool,
        basics(
            "--where",
            help="Of `--cases`: write each fact at every token and layer, beside its causal trace.",
        ),
    ] = False,
    model: Model = "demo",
    layer: Annotated[
        int | None,
        measured(help="The block whose MLP is changed.", show_default="an eighth of the way up"),
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
            help="`rome`, one key in both places; or `rome-mixed-keys`, its first form; of "
            "`--cases` also `fine-tuning` of the same matrix.",
        ),
    ] = MethodOption.rome,
    prefixes: Annotated[
        int, measured(help="Pieces of text before the prompt, over which the key is a mean.")
    ] = 8,
    steps: Annotated[int, measured(help="Steps of the search for the value, at most.")] = 30,
    rate: Annotated[
        float, measured(help="Its learning rate, in the root mean square of the MLP's output.")
    ] = 0.03,
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
    tuning_bound: Annotated[
        float,
        measured(
            help="Of `fine-tuning`: how far an entry moves at most, in the matrix's root mean "
            "square."
        ),
    ] = 0.2,
    tuning_rate: Annotated[
        float, measured(help="Of `fine-tuning`: its learning rate, in the same unit.")
    ] = 0.02,
    ridge: Annotated[
        float | None,
        measured(
            help="Added to the covariance's diagonal, in its mean diagonal.",
            show_default="0.001 where its rank is short",
        ),
    ] = None,
    inside: Annotated[
        bool,
        output(
            "--inside",
            help="What the edit does inside: the answer graph before and after, and which SAE "
            "features key and value are made of. The model needs SAEs.",
        ),
    ] = False,
    saes: Saes = None,
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

    Many facts, a table of metrics: `sae-graphs edit --cases demo`
    """
    from sae_graphs.editing.settings import EditSettings, Tuning

    if dtype in ("float16", "bfloat16"):
        raise SaeGraphsError(
            f"dtype is {dtype}, in which most of a change of rank one is rounded away; edit in "
            "float32 or float64"
        )
    given = _given(context)
    tuning = Tuning(tuning_bound, tuning_rate)
    way = method.value
    if way != "fine-tuning" and (told := given & {"--tuning-bound", "--tuning-rate"}):
        raise SaeGraphsError(
            f"{quoted(sorted(told))} is for --method fine-tuning; leave it out, or choose that"
        )
    kind = way if way != "fine-tuning" else "rome"  # whose settings serve fine-tuning as well
    settings = EditSettings(
        layer=layer,
        token=token.value,  # checked by the settings
        method=kind,  # type: ignore[arg-type]
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
    if saes is not None and not inside:
        raise SaeGraphsError("--saes are looked through by --inside; give both, or leave them out")
    source = Source(model, saes, device, dtype, memory)
    if text is not None and not text.is_file():
        raise SaeGraphsError(f"there is no text file {text}; give one, or leave it out")
    if cases is not None:
        _check_alone(prompt, subject, target, apply, inside=inside)
        if where:
            _check_everywhere(given)
            from sae_graphs.cli.edit_where import edit_everywhere

            edit_everywhere(cases, settings, source, text, out_folder, prepend_bos, first)
            return
        from sae_graphs.cli.edit_cases import edit_many

        edit_many(cases, way, settings, source, text, out_folder, prepend_bos, first, tuning)
        return
    unfit = {"--method fine-tuning": kind != way, "--first": first is not None, "--where": where}
    if any(unfit.values()):
        raise SaeGraphsError(
            f"{quoted(name for name, given in unfit.items() if given)} is for --cases; leave it "
            "out, or give a file of cases"
        )
    asked = some_text(prompt)
    if apply:
        if subject or target or inside:
            raise SaeGraphsError(
                "--apply has an edit that is made, and --subject, --target and --inside make one; "
                "leave out one of the two"
            )
        if unheard := given - HEARD_WITH:
            raise SaeGraphsError(
                f"{quoted(sorted(unheard))} would do nothing: --apply has an edit that is made; "
                "leave it out"
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
    from sae_graphs.cli.editing import Fact, edit_one

    fact = Fact(subject, asked, target)
    edit_one(fact, settings, source, text, out_folder, prepend_bos, inside=inside)


def _check_alone(
    prompt: str | None,
    subject: str | None,
    target: str | None,
    apply: list[Path] | None,
    *,
    inside: bool,
) -> None:
    given: dict[str, object] = {
        "a prompt": prompt,
        "--subject": subject,
        "--target": target,
        "--apply": apply,
    }
    given["--inside"] = inside
    unfit = [name for name, value in given.items() if value]
    if unfit:
        raise SaeGraphsError(
            f"--cases has prompts, subjects and targets of its own, and {quoted(unfit)} is for one "
            "fact; leave out one of the two"
        )


def _check_everywhere(given: frozenset[str]) -> None:
    if given & {"--layer", "--token", "--method"}:
        raise SaeGraphsError(
            "--where writes at every token and layer, by rome; leave out --layer, --token and "
            "--method"
        )


def _given(context: typer.Context) -> frozenset[str]:
    """The options that stand on the command line."""
    names = {it.name: it.opts[0] for it in context.command.params if it.name and it.opts}
    return frozenset(
        option
        for name, option in names.items()
        if option.startswith("--")
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    )
