"""House rules that a machine can judge: sizes, sentences, and what may not stand in a template."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    path for app in ("agentops", "reviews", "runs") for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts
]
TEMPLATES = list((ROOT / "templates").rglob("*.html"))
SCRIPTS = list((ROOT / "static" / "js").glob("*.js"))
STYLES = list((ROOT / "static" / "css").glob("*.css"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_a_module_is_short_and_opens_with_a_sentence(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "the first line says what the module is responsible for"
    assert [one.name for one in functions(path) if (one.end_lineno or 0) - one.lineno >= 50] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=short)
def test_a_template_is_short_and_trusts_no_content(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 80
    for forbidden in ("|safe", "autoescape off", "javascript:", "hx-on", " onclick="):
        assert forbidden not in text
    assert not re.search(r"<[^>]* style=", text), "the content security policy blocks inline styles"
    assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", text), "and inline scripts"


def test_our_own_css_and_scripts_stay_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in STYLES) <= 150
    assert {short(path) for path in SCRIPTS if len(path.read_text().splitlines()) > 60} == set()


RENDERED_BY_DJANGO = ("400", "403", "403_csrf", "404", "500")


def test_every_template_but_a_partial_is_rendered_by_somebody() -> None:
    code = "".join(path.read_text() for path in MODULES) + "".join(path.read_text() for path in TEMPLATES)
    pages = [path for path in TEMPLATES if path.parent.name != "account" and path.stem not in RENDERED_BY_DJANGO]
    unused = {short(path) for path in pages if str(path.relative_to(ROOT / "templates")) not in code}
    assert unused == set()
