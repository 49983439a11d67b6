"""The colours of pages, as CSS variables: light, dark, and light again on paper."""

from __future__ import annotations

from sae_graphs.render import style

# A variable's name in pages, and the name of its colour in `style`, which pictures use.
VARIABLES = {
    "ink": "INK",
    "soft": "SOFT",
    "faint": "FAINT",
    "line": "LINE",
    "panel": "PANEL",
    "band": "BAND",
    "paper": "WHITE",
    "bar": "BAR",
    "lowers": "LOWERS",
    "raises": "RAISES",
}
LIGHT = {variable: getattr(style, name) for variable, name in VARIABLES.items()}
DARK = {
    "ink": "#e2e8f0",
    "soft": "#a3b1c6",
    "faint": "#64748b",
    "line": "#3b4a63",
    "panel": "#1a2436",
    "band": "#24314a",
    "paper": "#0f172a",
    "bar": "#94a3b8",
    "lowers": "#ff7b72",
    "raises": "#7db0ff",
}


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


ROOT = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT)} }} }}
"""
