"""Names on disk are defined in one module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from salip_ray.output import layout

PACKAGE = Path(layout.__file__).parents[1]
#: A template of Jinja happens to have the name of the report that it makes.
TEMPLATES = {("page.py", "report.html")}
FOLDERS = ("shards/", "masks/", "stats/", "reviews/")
NAMES = sorted(
    value
    for name, value in vars(layout).items()
    if name[0] != "_" and name.isupper() and isinstance(value, str) and "." in value
)


def spelled_names(path: Path) -> list[str]:
    """Return the string literals of a module that spell a name on disk; docstrings may do so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    literals = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]
    return [
        f"{path.relative_to(path.anchor)}:{node.lineno}: {node.value!r}"
        for node in literals
        if spells_a_name(node.value) and (path.name, node.value) not in TEMPLATES
    ]


def spells_a_name(text: str) -> bool:
    if " " in text:
        return False  # a sentence, such as a help text
    return (
        any(text == name or text.endswith(f"/{name}") for name in NAMES)
        or text.startswith((*FOLDERS, "part-"))
        or layout.is_label_map(text)
    )


@pytest.mark.parametrize(
    "text",
    ["run.json", "/out/run.json", "shards/part-", "part-00000", ".mask.png", "x.mask.png"],
)
def test_check_sees_a_name(tmp_path, text):
    (tmp_path / "m.py").write_text(f"def f(x):\n    return f'{{x}}{text}', {text!r}\n")
    assert len(spelled_names(tmp_path / "m.py")) >= 1


def test_check_covers_the_names_of_every_output():
    assert {"run.json", "manifest.parquet", "lease.json", "summary.json"} <= set(NAMES)
    assert {"export.json", "student.json", "tuning.json", "evaluation.json"} <= set(NAMES)


def test_only_the_layout_spells_names_on_disk():
    modules = [path for path in PACKAGE.rglob("*.py") if path != Path(layout.__file__)]
    assert [line for path in modules for line in spelled_names(path)] == []


@pytest.mark.parametrize("folder", layout.SUFFIXES)
def test_shard_number_is_that_of_the_shard_file(folder):
    for shard in (0, 7, 123_456):
        name = layout.shard_file(folder, shard).removeprefix(f"{folder}/")
        assert layout.shard_number(name, folder) == shard
    for other in ("part-0.parquet", "part-00000.txt", "part-00000.parquet.tmp", "notes.txt"):
        assert layout.shard_number(other, folder) is None


def test_members_of_a_tar_name_their_image():
    member = layout.label_map_member("0" * 32)
    assert layout.is_label_map(member)
    assert layout.image_of_member(member) == "0" * 32
    assert not layout.is_label_map(layout.description_member("0" * 32))
