"""Templates: every text in them is escaped, and what is missing is not skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from sae_graphs.render.document.shell import POLICY, allowed, script_of, shell
from sae_graphs.render.document.templates import PACKAGE, filled, macros, ours
from sae_graphs.text import in_page, visible

TEMPLATES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.html.j2"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_marks_text_as_safe(name: str) -> None:
    source = (PACKAGE / name).read_text(encoding="utf-8")
    for word in ("safe", "autoescape", "Markup", "escape"):
        assert word not in source


def test_there_are_templates() -> None:
    assert len(TEMPLATES) > 8


@given(st.text())
def test_a_text_is_escaped_once_and_in_one_way(text: str) -> None:
    found = macros("render/notebook.html.j2").table(text, ["<b>"], [[text]])
    assert f"<caption>{in_page(text)}</caption>" in found
    assert f">{in_page(visible(text, space=' '))}</td>" in found
    assert "<b>" not in found


def test_what_is_ours_stands_as_it_is() -> None:
    page = shell("<t>", ours("<p>'</p>"), style="a > b {}", code="1 < 2", policy=POLICY)
    for part in ("<title>&lt;t&gt;</title>", "<p>'</p>", "a > b {}", "<script>1 < 2</script>"):
        assert part in page
    assert f'content="{POLICY}"' in page
    assert "<p>" not in shell("", Markup.escape("<p>"), style="")


def test_a_page_without_a_script_has_none() -> None:
    page = shell("t", ours(""), style="")
    assert "<script" not in page and "http-equiv" not in page and "icon" not in page


def test_a_script_is_one_function_and_named_by_its_hash(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"{name}();")
    code = script_of(tmp_path / name for name in "ab")
    assert code == '(() => {\n"use strict";\na();\nb();\n})();'
    assert allowed("") == "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # of no bytes


def test_what_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        filled("render/document/page.html.j2")
