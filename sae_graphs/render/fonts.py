"""The fonts that come with the package: a machine without any still draws text.

Graphviz finds fonts through fontconfig, which reads its configuration when the first text of a
process is measured. `bundled_fonts` has it see these fonts first, then the machine's own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent / "fonts"
_REMARKS = (b"Fontconfig warning", b"Warning: Unable to reclaim box space in spline routing")
_SWITCH = "FONTCONFIG_FILE"  # whoever sets it has chosen their fonts
_CONFIGURATION = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>{folder}</dir>
{machine}
<cachedir prefix="xdg">fontconfig</cachedir>
<cachedir>{cache}</cachedir>
</fontconfig>
"""
# Not the machine's own configuration: its syntax may be newer than the library that reads it.
_MACHINE = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "WINDOWSFONTDIR",
)


@contextmanager
def bundled_fonts() -> Iterator[None]:
    """While it lasts, fontconfig finds the package's fonts too; the environment is put back."""
    if os.environ.get(_SWITCH):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="sae_graphs_fonts_") as folder:
        file = Path(folder) / "fonts.conf"
        machine = "\n".join(f"<dir>{place}</dir>" for place in _MACHINE)
        text = _CONFIGURATION.format(
            folder=escape(str(FOLDER)), machine=machine, cache=escape(folder)
        )
        file.write_text(text, encoding="utf-8")
        os.environ[_SWITCH] = str(file)
        try:
            with _without_warnings():
                yield
        finally:
            os.environ.pop(_SWITCH, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep remarks off standard error that are nothing to a reader; pass all else on.

    They are fontconfig's on the machine's own files, and Graphviz's on arrows that it draws with
    less room than it would like.
    """
    try:
        standard_error = os.dup(2)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_REMARKS):
                    os.write(2, line)
