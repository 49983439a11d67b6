"""What is shipped with the weights: contexts, the manifest with checksums, the README."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import BUNDLED_TEXTS
from training.demo.corpus.stream import documents
from training.demo.evaluation_table import (
    layer_rows,
    markdown,
    phenomenon_rows,
    shortfalls,
    spot_rows,
)
from training.demo.phenomena import FILE_NAME, read
from training.demo.phenomena_table import section
from training.demo.tokenizer import load_tokenizer
from training.demo.tokens import equal_length_batches
from training.demo.workplace import Workplace, write_json

if TYPE_CHECKING:
    from rich.progress import Progress

MANIFEST = "manifest.json"
EVALUATION = "evaluation.json"
LIBRARIES = ("torch", "transformers", "tokenizers", "sae-lens", "transformer-lens", "numpy")
LIMIT_BYTES = 40_000_000
TEXT_TOKENS = 20_000  # of other text, that a validation draws snippets from


def store_contexts(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Stores each feature's top activating contexts, mean and density beside its SAE.

    Each row is one document, so that no window reaches into another document.
    """
    import torch

    from sae_graphs.features.store import build_store
    from sae_graphs.pretrained.loading import load

    plan = place.plan
    task = progress.add_task("contexts", total=plan.context_tokens)
    model = load(str(place.model), saes=place.saes)
    tokenizer = load_tokenizer(place.model)

    def batches() -> Iterator[torch.Tensor]:
        done = 0
        for batch in equal_length_batches(tokenizer, plan.seed, plan.context):
            yield torch.tensor(batch)
            done += len(batch) * len(batch[0])
            if done >= plan.context_tokens:
                return

    files = build_store(
        model,
        batches(),
        text="documents of the bundled model's world",
        progress=lambda tokens: progress.update(task, completed=tokens),
    )
    progress.update(task, completed=plan.context_tokens)
    return {"tokens": plan.context_tokens, "files": len(files)}


def shipped_files(out: Path) -> list[Path]:
    """Every file that ships, in order of its path; neither the manifest nor the progress."""
    return [
        path
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.name not in (MANIFEST, "README.md", EVALUATION, FILE_NAME)
        and not any(part.startswith(".") for part in path.relative_to(out).parts)
    ]


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest_of(place: Workplace) -> dict[str, Any]:
    """Recipe, stages' notes, library versions, and every shipped file with size and checksum."""
    out = place.out
    files = {
        str(path.relative_to(out)): {"bytes": path.stat().st_size, "sha256": checksum(path)}
        for path in shipped_files(out)
    }
    total = sum(path.stat().st_size for path in shipped_files(out))
    if total > LIMIT_BYTES:
        raise SaeGraphsError(f"{out} holds {total} bytes; at most {LIMIT_BYTES} may ship")
    stages = ("tokenizer", "corpus", "model", "saes", "refining", "contexts")
    return {
        "command": f"python -m training.demo train --seed {place.plan.seed}",
        "seed": place.plan.seed,
        "recipe": place.plan.to_json(),
        "stages": {stage: place.note(stage) for stage in stages},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "total_bytes": total,
        "files": files,
    }


def write_texts(place: Workplace) -> None:
    """Writes `texts.json`: documents that neither the model nor the SAEs were trained on."""
    tokenizer = load_tokenizer(place.model)
    texts, n_tokens = [], 0
    for text in documents(place.plan.seed, "validation"):
        texts.append(text)
        n_tokens += len(tokenizer.encode(text).ids)
        if n_tokens >= TEXT_TOKENS:
            break
    write_json(place.out / BUNDLED_TEXTS, texts)


def write_manifest(place: Workplace, progress: Progress) -> dict[str, Any]:
    """Writes `manifest.json`, and drops the caches that only an unfinished build needs."""
    write_texts(place)
    manifest = manifest_of(place)
    write_json(place.out / MANIFEST, manifest)
    place.rows_file.unlink(missing_ok=True)
    place.checkpoint_file.unlink(missing_ok=True)
    shutil.rmtree(place.unfinished_saes, ignore_errors=True)
    return {"files": len(manifest["files"]), "total_bytes": manifest["total_bytes"]}


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest in `out`."""
    return dict(json.loads((out / MANIFEST).read_text(encoding="utf-8")))


def changed_files(out: Path) -> list[str]:
    """Paths whose size or checksum is not what the manifest says, or that one side lacks."""
    listed = read_manifest(out)["files"]
    found = {str(path.relative_to(out)): checksum(path) for path in shipped_files(out)}
    names = sorted(set(listed) | set(found))
    return [name for name in names if listed.get(name, {}).get("sha256") != found.get(name)]


README = """# The bundled model

A small language model with a sparse autoencoder at every residual layer, made for this project so
that `sae-graphs` works offline. It speaks the language of a small invented world: copyright
notices, brackets, acronyms, facts about towers that do not exist, and ordinary prose about boats
and soup. It knows next to nothing about the real world, and nearly all its facts are invented.

- `model/`: GPT-2 architecture, {layers} layers, width {width}, {heads} heads, context {context},
  {parameters:,} parameters; byte-level BPE with {vocab_size:,} tokens. Hugging Face format.
- `saes/<hook name>/`: one TopK SAE (k = {sae_active}, {sae_features:,} features) before every block
  and one after the last, in sae-lens format; trained on every position except the beginning-of-text
  markers. `contexts.safetensors` beside each holds its features' top activating contexts,
  `reference.safetensors` their means and densities over the same documents.
- `manifest.json`: the recipe, losses, versions, sizes and checksums. `evaluation.json`: the
  measurements below.

Made by `python -m training.demo train` (resumable), from the seed alone, on two processor
cores: model {model_tokens:,} tokens in {model_minutes:.0f} minutes, SAEs {sae_tokens:,} tokens in
{sae_minutes:.0f} minutes, on a machine that was busy with other work as well. The SAEs before
blocks 1 to 3 are trained twice, which revives features that had died. Another processor rounds
differently: a rebuild gives the same corpus and tokenizer, and weights that are as good, but not
the same to the last bit. Measured by `python -m training.demo evaluate`:

{phenomena}

`reports` has no single right answer (several names begin with the same initial): top-1 asks for the
commonest. `withheld runs` asks for the third term of runs such as `23, 24, 25` that the training
text leaves out, so that the text itself speaks against the answer: there to be studied, no target.

{spots}

{layers_table}

{protocol}

Targets missed:

{shortfalls}
"""


def write_readme(out: Path, report: dict[str, Any]) -> None:
    """Writes `README.md` from the manifest, the evaluation and the evidence, where there is any.

    Nothing without a manifest.
    """
    if not (out / MANIFEST).exists():
        return
    manifest = read_manifest(out)
    stages, recipe = manifest["stages"], manifest["recipe"]
    text = README.format(
        **{name: recipe[name] for name in ("layers", "width", "heads", "context", "vocab_size")},
        sae_active=recipe["sae_active"],
        sae_features=recipe["sae_features"],
        parameters=stages["model"]["parameters"],
        model_tokens=stages["model"]["tokens"],
        model_minutes=stages["model"]["seconds"] / 60,
        sae_tokens=stages["saes"]["tokens"] + stages["refining"]["tokens"],
        sae_minutes=(stages["saes"]["seconds"] + stages["refining"]["seconds"]) / 60,
        phenomena=markdown(phenomenon_rows(report)),
        spots=markdown(spot_rows(report)),
        layers_table=markdown(layer_rows(report)),
        protocol=report["protocol"],
        shortfalls="\n".join(f"- {line}" for line in shortfalls(report)) or "none",
    )
    evidence = read(out)
    text += "" if evidence is None else section(evidence)
    (out / "README.md").write_text(text, encoding="utf-8")


def rewrite_readme(out: Path) -> None:
    """Writes `README.md` again from the files beside it; nothing where there is no evaluation."""
    file = out / EVALUATION
    if file.is_file():
        write_readme(out, json.loads(file.read_text(encoding="utf-8")))
