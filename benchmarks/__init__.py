"""How fast is it, and in how much memory? All in one run: `python -m benchmarks`."""
