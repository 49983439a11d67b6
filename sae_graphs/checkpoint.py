"""Parts of an interrupted run, kept until it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

PATIENCE = 2.0  # seconds: what a shorter run measured is not worth writing
SAMPLE = 2**16  # values of each weight that tell models apart


def run_key(facts: Any, weights: Iterator[tuple[str, Any]]) -> str:
    """A few letters that tell apart what determines the numbers of a run.

    `facts` are plain JSON; of each tensor of the `weights` its kind, its shape and values spread
    over all of it count: any training changes them, and no model is read whole.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in weights:
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(flat.numel() // SAMPLE, 1) | 1]  # odd steps pass through all columns
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
