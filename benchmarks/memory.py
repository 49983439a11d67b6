"""Peak memory of one method, in a process of its own: `python -m benchmarks.memory ...`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.measure import Memory


def memory_in_child(
    method: str, mode: str, *, tokens: int, active: int, threads: int, tiny: bool = False
) -> Memory:
    """Run a method once in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", method, mode]
    command += [str(tokens), str(active), str(threads), *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{method} at {tokens} tokens failed:\n{done.stderr[-2000:]}")
    return Memory(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print `[peak, added]` in bytes."""
    import torch

    from benchmarks.measure import memory_of
    from benchmarks.methods import METHODS, case_of
    from benchmarks.shapes import GPT2_SMALL, TINY, make_shapes, prepare

    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("mode", choices=("all", "read"))
    parser.add_argument("tokens", type=int)
    parser.add_argument("active", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shapes = make_shapes(TINY if args.tiny else GPT2_SMALL)
    middle = shapes.sizes.n_layers // 2  # one layer pair: another needs no more at a time
    with torch.no_grad():
        case = case_of(prepare(shapes, args.tokens, args.active), args.mode, [middle])
        print(json.dumps(memory_of(METHODS[args.method](case))))


if __name__ == "__main__":
    main()
