"""Editing facts."""
