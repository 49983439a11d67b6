"""`sae-graphs`, and `python -m sae_graphs`: the command line, which Ctrl-C ends at any moment."""

from __future__ import annotations

import sys

from sae_graphs.errors import STOPPED


def main() -> None:
    """Run a command; also while its modules are still being imported, Ctrl-C is one line."""
    try:
        from sae_graphs.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was begun\n")
        raise SystemExit(STOPPED) from None


if __name__ == "__main__":
    main()
