"""Does a graph show what the answer hangs on? Held-out prompts whose deciding tokens are known.

1. Take the first held-out prompts that the model answers. 2. Of each, the strongest features by
several rules: their effect on the answer, the same by gradients, the source's own graph, chance.
3. Do they stand at a deciding token; is the answer gone without them, or left with them alone; do
the graph and its paths stand up to validation? 4. The same where nothing should be found.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.files import write_atomically
from sae_graphs.schema import plain, rebuilt
from training.demo import null_models
from training.demo.asked import CURVE, OTHERS, RULES, SETTINGS, Asked, Question, ask
from training.demo.corpus.case import Case
from training.demo.corpus.stream import held_out_cases
from training.demo.evaluation import encode_case, require_model
from training.demo.tokenizer import load_tokenizer
from training.demo.truth import deciding_positions

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sae_graphs.model.instrument import InstrumentedModel

TESTED = (
    "closings",
    "acronyms",
    "facts",
    "indirect objects",
    "cached phrases",
    "induction",
)
SEED = 4  # of the held-out cases; chosen before anything was measured, and not tried beside others
CASES = 64
DRAWN = 4  # times as many cases are drawn as are wanted: some cannot be asked
DIGITS = 6  # kept of every number
FILE_NAME = "phenomena.json"
LIBRARIES = ("torch", "transformers", "tokenizers", "sae-lens", "transformer-lens", "numpy")

Told = Callable[[str, int, int], None]
"""`told(phenomenon, prompts done, prompts in all)`."""


class Questions(NamedTuple):
    """Those that are asked, and how many before the last of them were not, by reason."""

    asked: tuple[Question, ...]
    skipped: dict[str, int]


def measure(
    out: Path, *, cases: int = CASES, phenomena: Sequence[str] = TESTED, told: Told | None = None
) -> dict[str, Any]:
    """What is found of every phenomenon; saved as `<out>/phenomena.json`.

    An interrupted run goes on at the prompt where it stopped. Raises `SaeGraphsError` when there
    is no trained model in `out`.
    """
    require_model(out)
    from sae_graphs.pretrained.loading import load

    model = load(str(out / "model"), saes=out / "saes")
    tokenizer = load_tokenizer(out / "model")
    questions = {name: choose(model, tokenizer, name, cases) for name in phenomena}
    kept = Kept(out / ".progress" / "phenomena", _key(out))
    jobs: list[tuple[str, str, Question, str | None]] = [
        (name, f"{name} {number}", question, None)
        for name, found in questions.items()
        for number, question in enumerate(found.asked)
    ]
    jobs += [
        (name, f"{name} {number} {which}", question, which)
        for which in null_models.NULL_MODELS
        for name, found in questions.items()
        for number, question in enumerate(found.asked[: null_models.CASES])
        if question.deciding
    ]
    total = len(jobs)
    for done, (name, key, question, which) in enumerate(jobs):
        if told is not None:
            told(f"{name}, {which}" if which else name, done, total)
        if key not in kept.found:
            if which is None:
                found_here: Any = ask(model, question)[0]
            else:
                found_here = null_models.nulled(model, question, which, SEED)
            kept.keep(key, rounded(plain(found_here)))
    results = []
    for name in questions:
        own = [(kept.found[key], which) for part, key, _, which in jobs if part == name]
        results.append(
            {
                "phenomenon": name,
                "skipped": questions[name].skipped,
                "prompts": [prompt for prompt, which in own if not which],
                "nulls": [null for null, which in own if which and null is not None],
            }
        )
    if told is not None:
        told("done", total, total)
    report = _report(cases, results)
    write_atomically(out / FILE_NAME, to_bytes(report))
    kept.remove()
    return report


def choose(
    model: InstrumentedModel, tokenizer: Tokenizer, phenomenon: str, count: int
) -> Questions:
    """The first `count` held-out cases that can be asked and that the model answers rightly.

    Its likeliest next token must be the first of the answer, with log-odds above 0.
    """
    asked: list[Question] = []
    skipped = dict.fromkeys(("not a token of its own", "another token is likelier", "below 0"), 0)
    for case in held_out_cases(phenomenon, DRAWN * count, SEED):
        if len(asked) == count:
            break
        question, why = question_of(model, tokenizer, case)
        if question is None:
            skipped[why] += 1
        else:
            asked.append(question)
    return Questions(tuple(asked), skipped)


def question_of(
    model: InstrumentedModel, tokenizer: Tokenizer, case: Case
) -> tuple[Question | None, str]:
    """A case as it is asked, or why it is not."""
    encoded = encode_case(tokenizer, case.prompt, case.answer)
    if encoded is None:
        return None, "not a token of its own"
    ids, right = encoded
    clean = model.clean_run(case.prompt)
    assert list(clean.token_ids) == ids, case.prompt
    probabilities = clean.logits[-1].double().softmax(-1)
    if int(probabilities.argmax()) != right:
        return None, "another token is likelier"
    if float(probabilities[right]) <= 0.5:
        return None, "below 0"
    return Question(case.prompt, right, len(ids), deciding_positions(tokenizer, case)), ""


def to_bytes(report: dict[str, Any]) -> bytes:
    """The report as JSON, each prompt on a line of its own."""
    head = {name: value for name, value in report.items() if name != "phenomena"}
    lines = json.dumps(head, indent=1).removesuffix("\n}")
    parts = []
    for found in report["phenomena"]:
        prompts, nulls = (
            ",\n   ".join(json.dumps(prompt) for prompt in found[kind])
            for kind in ("prompts", "nulls")
        )
        name, skipped = json.dumps(found["phenomenon"]), json.dumps(found["skipped"])
        parts.append(
            f'  {{"phenomenon": {name}, "skipped": {skipped}, "prompts": [\n   {prompts}],\n'
            f'   "nulls": [\n   {nulls}]}}'
        )
    body = ",\n".join(parts)
    return f'{lines},\n "phenomena": [\n{body}\n ]\n}}\n'.encode("ascii")


def read(out: Path) -> dict[str, Any] | None:
    """The report in `out`, if there is one."""
    file = out / FILE_NAME
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def prompts_of(found: dict[str, Any]) -> list[Asked]:
    """The prompts of one phenomenon of a report."""
    return [
        rebuilt(Asked, prompt, "a prompt", remedy="run `python -m training.demo phenomena` again")
        for prompt in found["prompts"]
    ]


def nulls_of(found: dict[str, Any]) -> list[null_models.Nulled]:
    """What was found of one phenomenon where nothing should be."""
    remedy = "run `python -m training.demo phenomena` again"
    return [rebuilt(null_models.Nulled, null, "a prompt", remedy=remedy) for null in found["nulls"]]


class Kept:
    """Prompts that are done, in a folder, until all are; those of another run are not read."""

    def __init__(self, folder: Path, key: str) -> None:
        self.file = folder / f"{key}.json"
        self.found: dict[str, Any] = {}
        if self.file.is_file():
            self.found = json.loads(self.file.read_text(encoding="utf-8"))

    def keep(self, name: str, result: dict[str, Any] | None) -> None:
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


def _report(cases: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = sum(prompt["seconds"] for found in results for prompt in found["prompts"])
    return {
        "schema": "sae_graphs/phenomena/3",
        "command": f"python -m training.demo phenomena --cases {cases}",
        "seed": SEED,
        "cases": cases,
        "controls": {"answer": SETTINGS.controls, "others": OTHERS.controls},
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "phenomena": results,
    }


def _key(out: Path) -> str:
    """Tells apart runs that would find something else of a prompt, however many are asked."""
    from sae_graphs._version import __version__

    digest = hashlib.sha256()
    facts = [__version__, SEED, RULES, CURVE, dict(SETTINGS.to_json()), dict(OTHERS.to_json())]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for file in sorted(out.glob("*/**/*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def rounded(value: Any) -> Any:
    """Six digits are kept: what is made of them is the same for every reader."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
