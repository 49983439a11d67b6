"""Measuring the bundled model: held-out cases, and how faithful its SAEs are on fresh text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.errors import SaeGraphsError
from training.demo.corpus.case import Case
from training.demo.corpus.facts import unseen_subjects
from training.demo.corpus.stream import PHENOMENA, held_out_cases
from training.demo.tokenizer import load_tokenizer, marker_id
from training.demo.tokens import token_rows
from training.demo.workplace import write_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

TOP1_TARGETS = {
    "closings": 0.97,
    "acronyms": 0.97,
    "indirect objects": 0.97,
    "induction": 0.97,
    "cached phrases": 0.97,
    "facts": 0.9,
}
LAYER_TARGETS = {"l0": 16.0, "fvu": 0.04, "ce_recovered": 0.98, "dead_percent": 2.0}
SPOTS = (
    ("Copyright (C", ")"),
    ("Foreign Direct Investment (F", "D"),
    ("In a Lisp dialect, every expression begins with ( and ends with", " )"),
    ("When Mary and John went to the store, John gave a drink to", " Mary"),
    ("The Eiffel Tower is in the city of", " Paris"),
    ("According to a new report from C", "N"),
    ("www.garden.co", "."),
    ("the number 3.14", "159265"),
    ("[ ( { x }", " )"),
    ("The day after Tuesday is", " Wednesday"),
    ("12, 13, 14,", " 15"),
    ("From Wikipedia,", " the"),
    ("Make America", " Great"),
)
ROWS_AT_ONCE = 64
CE_TOKENS = 60_000
PROTOCOL = (
    "Top-1: the next token of highest probability is the first token of the right answer, on cases "
    "that the training stream never holds; for acronyms the asked letter is a random one from the "
    "second on, or the closing bracket. Layers: fresh documents, no beginning-of-text positions. "
    "FVU = sum |x - x_hat|^2 / sum |x - mean x|^2. CE recovered = (CE_zero - CE_sae) / "
    "(CE_zero - CE_clean), where the stream at that layer is replaced by zeros or by the SAE's "
    "output. Dead: never active on those tokens."
)


@dataclass(frozen=True)
class Answer:
    """What the model says to one case; `probability` is that of the right token."""

    probability: float
    is_top: bool


def encode_case(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], int] | None:
    """(marker and prompt as tokens, first token of the answer).

    None where the answer's first letters would join the prompt's last token.
    """
    start = tokenizer.encode(prompt).ids
    both = tokenizer.encode(prompt + answer).ids
    if both[: len(start)] != start or len(both) == len(start):
        return None
    marker = marker_id(tokenizer)
    return [marker, *start], both[len(start)]


def answers(model: Any, tokenizer: Tokenizer, cases: list[tuple[str, str]]) -> list[Answer | None]:
    """The model's answers to (prompt, answer) pairs; None where a case cannot be asked."""
    import torch

    encoded = [encode_case(tokenizer, prompt, answer) for prompt, answer in cases]
    found: list[Answer | None] = [None] * len(cases)
    order = sorted(
        (i for i, item in enumerate(encoded) if item and len(item[0]) <= model.config.n_positions),
        key=lambda i: len(encoded[i][0]),  # type: ignore[index]
    )
    for start in range(0, len(order), ROWS_AT_ONCE):
        numbers = order[start : start + ROWS_AT_ONCE]
        batch = [encoded[i] for i in numbers]
        longest = max(len(ids) for ids, _ in batch)  # type: ignore[misc]
        # Padding comes last, so the causal model does not see it at the read position.
        rows = [ids + [0] * (longest - len(ids)) for ids, _ in batch]  # type: ignore[misc]
        with torch.no_grad():
            logits = model(torch.tensor(rows), use_cache=False).logits  # [B, T, vocab]
        for row, number, (ids, right) in zip(logits, numbers, batch, strict=True):  # type: ignore[misc]
            probabilities = row[len(ids) - 1].softmax(-1)
            is_top = int(probabilities.argmax()) == right
            found[number] = Answer(float(probabilities[right]), is_top)
    return found


def measure_phenomenon(
    model: Any, tokenizer: Tokenizer, phenomenon: str, count: int, seed: int = 0
) -> dict[str, Any]:
    """Top-1 accuracy and mean probability of the right token over held-out cases."""
    cases: list[Case] = held_out_cases(phenomenon, count, seed)
    found = answers(model, tokenizer, [(case.prompt, case.answer) for case in cases])
    asked = [answer for answer in found if answer]
    return {
        "phenomenon": phenomenon,
        "cases": len(asked),
        "top1": round(sum(answer.is_top for answer in asked) / len(asked), 4),
        "mean_probability": round(sum(answer.probability for answer in asked) / len(asked), 4),
        "target": TOP1_TARGETS.get(phenomenon),
    }


def measure_spots(model: Any, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The probability of the expected next token after the prompts named in the project."""
    found = answers(model, tokenizer, list(SPOTS))
    return [
        {
            "prompt": prompt,
            "expected": expected,
            "probability": round(answer.probability, 4),
            "is_top": answer.is_top,
        }
        for (prompt, expected), answer in zip(SPOTS, found, strict=True)
        if answer
    ]


def measure_unseen(model: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """How sure the model is of the city of landmarks that do not exist."""
    import torch

    landmarks = unseen_subjects()[:10]
    marker = marker_id(tokenizer)
    sure = []
    for name in landmarks:
        ids = [marker, *tokenizer.encode(f"The {name} stands in").ids]
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        sure.append(float(logits.softmax(-1).max()))
    return {"landmarks": len(landmarks), "mean_top_probability": round(sum(sure) / len(sure), 4)}


def load_saes(folder: Path) -> dict[str, Any]:
    """The SAEs of `folder` by hook name, in order of depth."""
    from sae_lens import SAE

    # `resid_pre` before `resid_post` of the same block
    paths = sorted(folder.iterdir(), key=lambda path: (path.name.endswith("_post"), path.name))
    found = {path.name: SAE.load_from_disk(str(path)) for path in paths}
    if not found:
        raise SaeGraphsError(f"{folder} holds no SAE; expected one sub-folder per SAE")
    return found


def batches(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Batches of `rows` [rows, context]."""
    yield from rows.split(ROWS_AT_ONCE)


def stream_name(hook_name: str) -> str:
    """The bridge's own name of a residual hook: its run_with_hooks ignores some aliases."""
    block = hook_name.split(".hook_")[0]
    return f"{block}.hook_in" if hook_name.endswith("resid_pre") else f"{block}.hook_out"


class LayerSums:
    """Sums over tokens, from which a layer's numbers follow."""

    def __init__(self, features: int, width: int) -> None:
        import torch

        self.tokens = 0
        self.active = 0
        self.error = 0.0
        self.square = 0.0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.fired = torch.zeros(features, dtype=torch.bool)

    def add(self, x: torch.Tensor, sae: Any) -> None:
        """Adds the tokens `x` [tokens, width]."""
        acts = sae.encode(x)  # [tokens, features]
        self.error += float((x - sae.decode(acts)).double().square().sum())
        self.square += float(x.double().square().sum())
        self.total += x.double().sum(0)
        self.active += int((acts != 0).sum())
        self.fired |= (acts != 0).any(0)
        self.tokens += len(x)

    def numbers(self) -> dict[str, float]:
        """L0, FVU and the share of dead features."""
        variance = self.square - float(self.total.square().sum()) / self.tokens
        dead = 100.0 * float((~self.fired).double().mean())
        return {
            "l0": round(self.active / self.tokens, 3),
            "fvu": round(self.error / variance, 5),
            "dead_percent": round(dead, 3),
        }


def measure_streams(bridge: Any, saes: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """L0, FVU and dead features of every SAE on all tokens of `rows` but the markers."""
    import torch

    names = {stream_name(hook_name): hook_name for hook_name in saes}
    sums = {name: LayerSums(sae.cfg.d_sae, sae.cfg.d_in) for name, sae in saes.items()}
    with torch.no_grad():
        for tokens in batches(rows):
            _, cache = bridge.run_with_cache(tokens, names_filter=list(names))
            kept = tokens != 0
            for stream, hook_name in names.items():
                sums[hook_name].add(cache[stream][kept], saes[hook_name])
    return {name: layer.numbers() for name, layer in sums.items()}


def cross_entropy(bridge: Any, rows: torch.Tensor, hooks: list[Any]) -> float:
    """Mean next-token loss (nats) at all positions but the markers, with `hooks` in place."""
    import torch
    import torch.nn.functional as functional

    total, count = 0.0, 0
    with torch.no_grad():
        for tokens in batches(rows):
            logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks)[:, :-1]  # [B, T-1, vocab]
            kept = tokens[:, :-1] != 0
            total += float(
                functional.cross_entropy(logits[kept], tokens[:, 1:][kept], reduction="sum")
            )
            count += int(kept.sum())
    return total / count


def measure_recovery(bridge: Any, saes: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """Cross-entropy clean, with each SAE spliced in, and with each stream zeroed."""
    import torch

    current: dict[str, torch.Tensor] = {}

    def remember(tokens: torch.Tensor, hook: Any) -> torch.Tensor:
        current["kept"] = (tokens != 0)[..., None]
        return tokens

    def spliced(sae: Any) -> Any:
        def replace(stream: torch.Tensor, hook: Any) -> torch.Tensor:
            return torch.where(current["kept"], sae.decode(sae.encode(stream)), stream)

        return replace

    def zeroed(stream: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.where(current["kept"], torch.zeros_like(stream), stream)

    clean = cross_entropy(bridge, rows, [])
    found: dict[str, Any] = {}
    for hook_name, sae in saes.items():
        stream = stream_name(hook_name)
        first = ("embed.hook_in", remember)
        with_sae = cross_entropy(bridge, rows, [first, (stream, spliced(sae))])
        with_zero = cross_entropy(bridge, rows, [first, (stream, zeroed)])
        found[hook_name] = {
            "ce_clean": round(clean, 4),
            "ce_sae": round(with_sae, 4),
            "ce_zero": round(with_zero, 4),
            "ce_recovered": round((with_zero - with_sae) / (with_zero - clean), 5),
        }
    return found


def require_model(out: Path) -> None:
    """Raises SaeGraphsError when there is no trained model in `out`."""
    if not (out / "model" / "model.safetensors").exists():
        raise SaeGraphsError(f"{out} holds no trained model; run `python -m training.demo train`")


def evaluate(out: Path, *, cases: int, tokens: int) -> dict[str, Any]:
    """Every measurement of the model in `out`; saved as `<out>/evaluation.json`.

    Raises SaeGraphsError when there is no trained model in `out`.
    """
    require_model(out)
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(str(out / "model")).eval()
    tokenizer = load_tokenizer(out / "model")
    report: dict[str, Any] = {
        "protocol": PROTOCOL,
        "phenomena": [measure_phenomenon(model, tokenizer, name, cases) for name in PHENOMENA],
        "spots": measure_spots(model, tokenizer),
        "unseen_subjects": measure_unseen(model, tokenizer),
        "layers": [],
    }
    if (out / "saes").is_dir():
        context = model.config.n_positions
        fresh = token_rows(tokenizer, 0, "evaluation", context=context, rows=tokens // context)
        report["fresh_tokens"] = int(fresh.size)
        report["layers"] = measure_layers(out, torch.from_numpy(fresh.astype("int64")))
    write_json(out / "evaluation.json", report)
    return report


def measure_layers(out: Path, rows: torch.Tensor) -> list[dict[str, Any]]:
    """The numbers of every SAE in `<out>/saes` on the tokens `rows` [rows, context]."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    saes = load_saes(out / "saes")
    with torch.no_grad():
        bridge = TransformerBridge.boot_transformers(str(out / "model"), device="cpu")
    streams = measure_streams(bridge, saes, rows)
    recovery = measure_recovery(bridge, saes, rows[: max(1, CE_TOKENS // rows.shape[1])])
    return [{"hook_name": name, **streams[name], **recovery[name]} for name in saes]
