"""The page on attacks names tests that exist, and marks those that are slow."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "attacks.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`( \*)?", PAGE)


@cache
def functions_of(path: str) -> dict[str, ast.FunctionDef]:
    """Return the functions of a module, by name."""
    module = ast.parse((ROOT / path).read_text())
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name", "star"), NAMED)
def test_the_test_exists_and_is_marked_if_it_is_slow(path, name, star):
    assert name in functions_of(path)
    marks = [ast.unparse(decorator) for decorator in functions_of(path)[name].decorator_list]
    assert ("pytest.mark.slow" in marks) == bool(star)


def test_every_class_of_attacks_has_tests():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [section[:2] for section in sections] == [f"{letter}." for letter in "ABCDEFGHIJKL"]
    assert all("::test_" in section for section in sections)
