"""Rank-one edits of a model's facts; Granger tests of feature series."""
