"""What every page stands in: head, title, policy, theme, style and the one script that may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sae_graphs.render.document.templates import filled, ours
from sae_graphs.render.palette import ROOT

if TYPE_CHECKING:
    from markupsafe import Markup

# What any page of ours starts from: nothing is fetched, and only the styles in it hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def shell(
    title: str,
    body: Markup,
    *,
    style: str,
    code: str = "",
    policy: str | None = None,
    icon: str | None = None,
) -> str:
    """A whole page around `body`, with the theme's colours before its `style`.

    `title` is visible text, `code` the script, `policy` what a page that is opened as a file may
    do (a server sends it as a header), `icon` the address of its icon.
    """
    page = filled(
        "render/document/shell.html.j2",
        title=title,
        body=body,
        theme=ours(ROOT),
        style=ours(style),
        code=ours(code),
        policy=ours(policy or ""),
        icon=icon,
    )
    return f"{page}\n"


def script_of(files: Iterable[Path]) -> str:
    """The script that these files make: all in one function, so that nothing of it is global."""
    parts = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


def allowed(code: str) -> str:
    """A script by its hash, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
