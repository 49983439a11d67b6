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
            yield
        finally:
            os.environ.pop(_SWITCH, None)
