"""`python -m sae_graphs.demo` is `python -m training.demo` now, in a clone of the project."""

import sys

if __name__ == "__main__":
    sys.exit("sae_graphs.demo is training.demo now: run `python -m training.demo` in a clone")
