"""Saved runs in a browser: a gallery, each graph's explorer, two graphs side by side.

Served to this machine alone, read from what runs wrote, and never written to.
"""
