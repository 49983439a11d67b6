"""Editing a fact as a rank-one change of one MLP; Granger tests of feature series."""
