"""The language check flags replaced words, and names what to write instead."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("check_language", ROOT / "tools/check_language.py")
check_language = importlib.util.module_from_spec(spec)
sys.modules["check_language"] = check_language
spec.loader.exec_module(check_language)


def flagged(path: Path) -> list[tuple[int, str]]:
    return [(finding.line, finding.advice) for finding in check_language.check_file(path)]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("The same command goes on from there.", "resume"),  # language: ok
        ("All shards are kept.", "cached"),  # language: ok
        ("one file beside the shard", "next to"),  # language: ok
        ("None where it was not found", "if"),  # language: ok
        ("fused where there are no GPUs", "if"),  # language: ok
        ("one row an image", "per"),  # language: ok
        ("1 images in 1 shards", "singular"),  # language: ok
        ("a knob of SAM", "setting"),  # language: ok
        ("what came of a job", "result"),  # language: ok
        ("3 file(s) skipped", "counted"),  # language: ok
    ],
)
def test_replaced_words_in_a_page_are_flagged(tmp_path, text, advice):
    page = tmp_path / "page.md"
    page.write_text(f"Fine.\n{text}\n")
    findings = flagged(page)
    assert findings, text
    assert all(line == 2 for line, _ in findings)
    assert any(advice in given for _, given in findings)


@pytest.mark.parametrize(
    "text",
    [
        "The folder where the images are.",
        "Run the same command again to resume.",
        "1 image in 1 shard, 21 images in 2 shards",
        "Put the output next to the input.",
        "An option of the task.",
    ],
)
def test_plain_english_is_not_flagged(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text + "\n")
    assert flagged(page) == []


def test_glossary_table_may_name_the_replaced_words(tmp_path):
    page = tmp_path / "page.md"
    table = "| use | not |\n| --- | --- |\n| settings | knobs |\n\n"  # language: ok
    page.write_text(table + "A knob.\n")  # language: ok
    assert [line for line, _ in flagged(page)] == [5]


def test_python_is_checked_in_docstrings_comments_strings_and_names(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""What is kept."""\n'  # language: ok
        "def make(knobs):\n"  # language: ok
        "    kept = 1  # beside it\n"  # language: ok
        '    return f"{kept} is mended"\n'  # language: ok
    )
    lines = [line for line, _ in flagged(module)]
    assert {1, 2, 3, 4} <= set(lines)


def test_cells_of_a_notebook_are_checked(tmp_path):
    path = tmp_path / "notebook.ipynb"
    cells = [{"source": ["Fine.\n", "A knob."]}, {"source": ["print('kept')"]}]  # language: ok
    path.write_text(json.dumps({"cells": cells}))
    assert [line for line, _ in flagged(path)] == [2, 1]


def test_marked_line_is_allowed(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('kept = "kept"  # language: ok\n')  # language: ok
    assert flagged(module) == []


def test_name_of_a_test_may_be_a_sentence(tmp_path):
    module = tmp_path / "test_module.py"
    module.write_text("def test_missing_file_is_not_found(): ...\n")
    assert flagged(module) == []


def test_exit_status_and_hint_of_the_command(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("nothing to see\n")
    assert check_language.main([str(page)]) == 0
    page.write_text("a knob\n")  # language: ok
    assert check_language.main([str(page)]) == 1
    printed = capsys.readouterr().out
    assert "use setting, option" in printed
    assert "CONTRIBUTING.md" in printed


def test_every_rule_gives_an_advice():
    rules = {**check_language.TEXT_RULES, **check_language.NAME_RULES}
    assert all(advice.strip() for advice in rules.values())
