"""Do graphs of a real model show what its answers hang on? Prompts marked by hand.

`prompts.csv` has a category, a prompt, and the answer; the tokens on which that is decided stand
between « and » in the prompt, marked before any graph was made. Asked are those of which the model
ranks the answer first, with a probability of at least `LEAST`; each like a held-out prompt of the
bundled model (`training.demo.asked`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.editing.prompts import target_of
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.schema import plain, rebuilt
from training.demo.asked import Asked, Question, ask
from training.demo.phenomena import Kept, rounded
from training.demo.truth import positions_at

if TYPE_CHECKING:
    from torch import Tensor

    from sae_graphs.model.instrument import InstrumentedModel

PROMPTS = Path(__file__).with_name("prompts.csv")
FILE_NAME = "truth.json"
SCHEMA = "sae_graphs/truth/1"
LEAST = 0.3  # of the answer's probability
NATS = 3.0  # by which the answer's log-odds are to fall
RULES = ("answer", "random")
REMEDY = "run `python -m training.smollm2 truth` again"


class Marked(NamedTuple):
    """A prompt of the file; `deciding` are its marked characters, as (start, end)."""

    category: str
    prompt: str
    answer: str
    deciding: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Seen:
    """What was found of one prompt.

    `controls_lower`: the share of matched controls that take `NATS` or more; None where none could
    be drawn. They are matched to the boxes of the default graph, the 16 strongest by |effect|, of
    which some may oppose the answer; `lowered` is of the 16 strongest supporters.
    """

    category: str
    asked: Asked
    controls_lower: float | None

    @property
    def lowered(self) -> bool:
        """Whether the score falls by `NATS` or more without the 16 strongest supporters."""
        return self.asked.score - self.asked.by("answer").without >= NATS


def marked(path: Path = PROMPTS) -> list[Marked]:
    """The prompts of a file, their marks taken out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [unmarked(row["category"], row["prompt"], row["answer"]) for row in rows]


def unmarked(category: str, text: str, answer: str) -> Marked:
    """A prompt without its marks, and where they stood.

    >>> unmarked("fact", "The «Louvre» is in", " Paris")
    Marked(category='fact', prompt='The Louvre is in', answer=' Paris', deciding=((4, 10),))
    """
    prompt, spans = "", []
    for outside, inside in re.findall("([^«»]*)(?:«([^«»]+)»)?", text):
        prompt += outside
        if inside:
            spans.append((len(prompt), len(prompt) + len(inside)))
        prompt += inside
    return Marked(category, prompt, answer, tuple(spans))


def question_of(model: InstrumentedModel, given: Marked) -> tuple[Question | None, str]:
    """A prompt as it is asked, or why it is not. The first token and the last decide nothing."""
    clean = model.clean_run(given.prompt)
    probabilities = clean.logits[-1].double().softmax(-1)
    top = int(probabilities.argmax())
    if top != target_of(model, given.prompt, given.answer).token_id:
        return None, "another token is likelier"
    if float(probabilities[top]) < LEAST:
        return None, f"below {LEAST}"
    tokens = [model.token_string(int(at)) for at in clean.token_ids]
    places = list(enumerate(_offsets(tokens, given.prompt)))
    deciding = positions_at(places[1:-1], given.deciding)
    return Question(given.prompt, top, len(places), deciding), ""


def measure(
    model: InstrumentedModel,
    prompts: Sequence[Marked],
    work: Path,
    out: Path,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """What is found of every prompt that can be asked; saved as `<out>/truth.json`.

    Raises SaeGraphsError where none can be.

    One of each category in turn, and saved after each: `left` is how many of them are still to
    come. An interrupted run goes on at the prompt where it stopped.
    """
    saes = digest([layer.sae.W_dec for layer in model.stack.layers])
    kept = Kept(work, _key(saes, prompts))
    chosen = [(given, *question_of(model, given)) for given in in_turn(prompts)]
    asked = [(given, question) for given, question, _ in chosen if question is not None]
    skipped = dict(Counter(why for _, question, why in chosen if question is None))
    if not asked:
        raise SaeGraphsError(
            f"{len(prompts)} prompts were given, and the model answers none of them as asked with "
            f"{LEAST:g} or more; give others"
        )
    report: dict[str, Any] = {}
    for done, (given, question) in enumerate(asked):
        told(done, len(asked))
        if given.prompt not in kept.found:
            kept.keep(given.prompt, rounded(plain(seen(model, given.category, question))))
        found = [kept.found[each.prompt] for each, _ in asked if each.prompt in kept.found]
        report = {
            "schema": SCHEMA,
            "command": "python -m training.smollm2 truth",
            "saes": saes,
            "skipped": skipped,
            "left": len(asked) - len(found),
            "prompts": found,
        }
        write_atomically(out / FILE_NAME, (json.dumps(report, indent=1) + "\n").encode("ascii"))
    told(len(asked), len(asked))
    kept.remove()
    return report


def in_turn(prompts: Sequence[Marked]) -> list[Marked]:
    """The first of each category, then the second of each, and so on."""
    counts: Counter[str] = Counter()
    places = []
    for each in prompts:
        places.append(counts[each.category])
        counts[each.category] += 1
    return [each for _, each in sorted(zip(places, prompts, strict=True), key=lambda it: it[0])]


def seen(model: InstrumentedModel, category: str, question: Question) -> Seen:
    """One prompt's default graph, held against its controls."""
    found, report = ask(model, question, RULES)
    null = report.units[0].null("matched")
    lowers = [report.clean.nats - score >= NATS for score in null.scores] if null else []
    return Seen(category, found, sum(lowers) / len(lowers) if lowers else None)


def digest(decoders: Sequence[Tensor]) -> str:
    """Tells SAEs apart by their decoders `[F, D]`, in half precision as they ship."""
    import torch

    found = hashlib.sha256()
    for decoder in decoders:
        found.update(decoder.detach().to(torch.float16).cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def prompts_of(report: dict[str, Any]) -> list[Seen]:
    """The prompts of a report."""
    return [rebuilt(Seen, prompt, "a prompt", remedy=REMEDY) for prompt in report["prompts"]]


# -- inside ----------------------------------------------------------------------------------------


def _offsets(tokens: Sequence[str], prompt: str) -> list[tuple[int, int]]:
    """The characters that each token stands for; BOS, where it is there, stands for none.

    Tokens of whole characters are taken for granted.
    """
    found, at = [], 0 if prompt.startswith(tokens[0]) else -len(tokens[0])
    for token in tokens:
        found.append((at, at + len(token)))
        at += len(token)
    return found


def _key(saes: str, prompts: Sequence[Marked]) -> str:
    """Tells apart runs that would find something else of a prompt."""
    from sae_graphs._version import __version__
    from training.demo.asked import SETTINGS

    told = [__version__, dict(SETTINGS.to_json()), saes, [list(each) for each in prompts]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
