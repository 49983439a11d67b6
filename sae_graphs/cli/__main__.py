"""`python -m sae_graphs.cli`."""

from sae_graphs.cli import main

main()
