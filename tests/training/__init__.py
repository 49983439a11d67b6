"""Tests of the bundled model: its corpus, its training, and the shipped files."""
