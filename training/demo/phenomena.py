"""Is there evidence for each phenomenon? The default graphs of held-out prompts, validated.

1. Take the first held-out prompts that the model answers. 2. Make each one's default graph, and
ablate every component beside its controls. 3. Where a component passes, ablate it in all the
other prompts of its phenomenon.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.files import write_atomically
from sae_graphs.validation.settings import ValidationSettings
from training.demo.corpus.stream import held_out_cases
from training.demo.evaluation import encode_case, require_model
from training.demo.phenomena_verdicts import Asked, Component, Trial, asked_from
from training.demo.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.validation.evidence import PromptResult

TESTED = (
    "closings",
    "acronyms",
    "facts",
    "indirect objects",
    "cached phrases",
    "induction",
)
SEED = 4  # of the held-out cases; chosen before anything was measured, and not tried beside others
CASES = 32
DRAWN = 4  # times as many cases are drawn as are wanted: some cannot be asked
LEAST_PROBABILITY = 0.5
DIGITS = 6  # kept of every number
FILE_NAME = "phenomena.json"
SETTINGS = ValidationSettings(quick=True, paths=0, other_controls=50)
LIBRARIES = ("torch", "transformers", "tokenizers", "sae-lens", "transformer-lens", "numpy")

Told = Callable[[str, int, int], None]
"""`told(phenomenon, prompts done, prompts in all)`."""


class Question(NamedTuple):
    """A held-out prompt that is asked: its right next token, and the model's probability of it."""

    prompt: str
    answer: str
    token_id: int
    probability: float
    tokens: int


class Questions(NamedTuple):
    """Those that are asked, and how many before the last of them were not, by reason."""

    asked: tuple[Question, ...]
    skipped: dict[str, int]


def measure(
    out: Path, *, cases: int = CASES, phenomena: Sequence[str] = TESTED, told: Told | None = None
) -> dict[str, Any]:
    """The evidence on every phenomenon; saved as `<out>/phenomena.json`.

    An interrupted run goes on at the prompt where it stopped. Raises `SaeGraphsError` when there
    is no trained model in `out`.
    """
    require_model(out)
    from sae_graphs.pretrained.loading import load

    model = load(str(out / "model"), saes=out / "saes")
    tokenizer = load_tokenizer(out / "model")
    questions = {name: choose(model, tokenizer, name, cases) for name in phenomena}
    kept = Kept(out / ".progress" / "phenomena", _key(out, cases))
    total, done = sum(len(found.asked) for found in questions.values()), 0
    results = []
    for name, found in questions.items():
        prompts = []
        for number in range(len(found.asked)):
            if told is not None:
                told(name, done, total)
            key = f"{name} {number}"
            if key not in kept.found:
                kept.keep(key, ask(model, found.asked, number).to_json())
            prompts.append(kept.found[key])
            done += 1
        results.append({"phenomenon": name, "skipped": found.skipped, "prompts": prompts})
    if told is not None:
        told("done", total, total)
    report = _report(cases, results)
    write_atomically(out / FILE_NAME, to_bytes(report))
    kept.remove()
    return report


def choose(
    model: InstrumentedModel, tokenizer: Tokenizer, phenomenon: str, count: int
) -> Questions:
    """The first `count` held-out cases that can be asked and that the model answers.

    Its likeliest next token must be the first of the answer, with a probability of at least 0.5.
    """
    asked: list[Question] = []
    skipped = dict.fromkeys(("not a token of its own", "another token is likelier", "below 0.5"), 0)
    for case in held_out_cases(phenomenon, DRAWN * count, SEED):
        if len(asked) == count:
            break
        encoded = encode_case(tokenizer, case.prompt, case.answer)
        if encoded is None:
            skipped["not a token of its own"] += 1
            continue
        ids, right = encoded
        clean = model.clean_run(case.prompt)
        assert list(clean.token_ids) == ids, case.prompt
        probabilities = clean.logits[-1].double().softmax(-1)
        probability = float(probabilities[right])
        if int(probabilities.argmax()) != right:
            skipped["another token is likelier"] += 1
        elif probability < LEAST_PROBABILITY:
            skipped["below 0.5"] += 1
        else:
            asked.append(Question(case.prompt, case.answer, right, probability, len(ids)))
    return Questions(tuple(asked), skipped)


def ask(model: InstrumentedModel, questions: Sequence[Question], number: int) -> Asked:
    """Every component of one prompt's default graph, in that prompt and in the others."""
    from sae_graphs.effects.build import causal_graph
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.validate import validate

    started = time.perf_counter()
    question = questions[number]
    graph = causal_graph(model, question.prompt)
    report = validate(model, graph, settings=SETTINGS)
    assert isinstance(report, ValidationReport)
    components = []
    for unit in report.units:
        own = trial(unit.of_discovery, question)
        others: dict[int, Trial] = {}
        if own.passes:
            others = _elsewhere(model, graph.component(unit.component), questions, number)
        features = tuple(str(feature) for feature in unit.features)
        components.append(Component(features, own, others))
    return Asked(
        prompt=question.prompt,
        answer=question.answer,
        token=model.token_string(question.token_id),
        probability=_rounded(question.probability),
        tokens=question.tokens,
        seconds=round(time.perf_counter() - started, 2),
        components=tuple(components),
    )


def trial(result: PromptResult, question: Question) -> Trial:
    """The numbers that decide."""
    assert result.target.token_id == question.token_id, question.prompt
    assert result.prompt == question.prompt
    matched, scaled, directions = (
        result.null(kind) for kind in ("matched", "scaled", "directions")
    )
    assert matched is not None and scaled is not None and directions is not None
    return Trial(
        before=_rounded(result.target.before),
        after=_rounded(result.target.after),
        active=result.active,
        p=_rounded(matched.p),
        control_median=_rounded(matched.median_change),
        norm=None if matched.match is None else _rounded(matched.match.middle),
        p_scaled=_rounded(scaled.p),
        p_directions=_rounded(directions.p),
        refused=matched.refused,
    )


def to_bytes(report: dict[str, Any]) -> bytes:
    """The report as JSON, each prompt on a line of its own."""
    head = {name: value for name, value in report.items() if name != "phenomena"}
    lines = json.dumps(head, indent=1).removesuffix("\n}")
    parts = []
    for found in report["phenomena"]:
        prompts = ",\n   ".join(json.dumps(prompt) for prompt in found["prompts"])
        name, skipped = json.dumps(found["phenomenon"]), json.dumps(found["skipped"])
        parts.append(
            f'  {{"phenomenon": {name}, "skipped": {skipped}, "prompts": [\n   {prompts}]}}'
        )
    body = ",\n".join(parts)
    return f'{lines},\n "phenomena": [\n{body}\n ]\n}}\n'.encode("ascii")


def read(out: Path) -> dict[str, Any] | None:
    """The report in `out`, if there is one."""
    file = out / FILE_NAME
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def prompts_of(found: dict[str, Any]) -> list[Asked]:
    """The prompts of one phenomenon of a report."""
    return [asked_from(prompt) for prompt in found["prompts"]]


class Kept:
    """Prompts that are done, in a folder, until all are; those of another run are not read."""

    def __init__(self, folder: Path, key: str) -> None:
        self.file = folder / f"{key}.json"
        self.found: dict[str, Any] = {}
        if self.file.is_file():
            self.found = json.loads(self.file.read_text(encoding="utf-8"))

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Add one, and write all of them."""
        # As if read from the file: keys of mappings become text.
        self.found[name] = json.loads(json.dumps(result))
        write_atomically(self.file, json.dumps(self.found).encode("ascii"))

    def remove(self) -> None:
        """Delete the file, once the whole is in place, and the folders that it leaves empty."""
        self.file.unlink(missing_ok=True)
        with suppress(OSError):
            self.file.parent.rmdir()
            self.file.parent.parent.rmdir()


# -- inside ----------------------------------------------------------------------------------------


def _elsewhere(
    model: InstrumentedModel, part: CausalGraph, questions: Sequence[Question], number: int
) -> dict[int, Trial]:
    """One component in all other prompts, by their numbers."""
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.validate import validate

    others = {at: other for at, other in enumerate(questions) if at != number}
    if not others:
        return {}
    report = validate(model, part, [other.prompt for other in others.values()], settings=SETTINGS)
    assert isinstance(report, ValidationReport)
    (unit,) = report.units
    results = zip(others.items(), unit.results[1:], strict=True)
    return {at: trial(result, other) for (at, other), result in results}


def _report(cases: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = sum(prompt["seconds"] for found in results for prompt in found["prompts"])
    return {
        "schema": "sae_graphs/phenomena/1",
        "command": f"python -m training.demo phenomena --cases {cases}",
        "seed": SEED,
        "cases": cases,
        "validation": dict(SETTINGS.to_json()),
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "phenomena": results,
    }


def _key(out: Path, cases: int) -> str:
    """Tells apart runs that would find something else."""
    from sae_graphs._version import __version__

    digest = hashlib.sha256()
    facts = [__version__, SEED, cases, dict(SETTINGS.to_json())]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for file in sorted(out.glob("*/**/*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _rounded(value: float | None) -> Any:
    """Six digits are kept: the verdicts are made of these, so that a reader's are the same."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
