"""README, CONTRIBUTING and docs: their commands, options, settings, links and paths exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from salip_ray.config import Config, load_config
from tests.conftest import ROOT
from tests.unit.cli.command_tree import all_commands, parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Shown in place of a value that the reader fills in.
PLACEHOLDERS = {"...", "FORMAT"}
PAGES_WITH_JOBS = "tests/packaging/test_documented_pages.py"
#: Commands that ``tests/unit/cli/test_documented_commands.py`` cannot run -> what runs them.
RUN_ELSEWHERE = {
    "make env": "every run of the tests in a new checkout",
    "make demo": "tests/packaging/test_wheel.py",
    "pip install .": "tests/packaging/test_wheel.py",
    "uv pip install --torch-backend cpu .": ".github/workflows/release.yml",
    "python jobs/train_student.py": PAGES_WITH_JOBS,
    "salip-ray import-review BACK LABELS": "tests/unit/review/test_round_trips.py",
    "salip-ray evaluate LABELS ID_MAPS --instance-ids": PAGES_WITH_JOBS,
    "salip-ray evaluate LABELS instances.json": PAGES_WITH_JOBS,
    "salip-ray calibrate ./labels ./masks --images 30": PAGES_WITH_JOBS,
    "salip-ray label ./xrays ./labels --config lungs-mine.yaml": PAGES_WITH_JOBS,
}
#: Task files that a command of the same page writes.
MADE_BY_COMMANDS = {"plan.yaml", "tuned/tuned.yaml"}
#: What a command may need that no test has.
MARK = r"needs [\w ]+|takes minutes"
SECTIONS = set(Config.model_fields)
OPTIONS = {name for command in all_commands().values() for p in command.params for name in p.opts}
OPTIONS |= {n for c in all_commands().values() for p in c.params for n in p.secondary_opts}


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)(test)


def shell_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a page's shell blocks."""
    for words, _ in marked_lines(page):
        yield words


def marked_lines(page: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the words of each command in a page's shell blocks, and what its mark says it needs.

    The mark is the title of the block, or a comment in the line; empty if there is none.
    """
    blocks = re.findall(
        r'^ *```sh(?: title="([^"\n]*)")?\n(.*?)^ *```', page.read_text(), re.DOTALL | re.MULTILINE
    )
    for title, block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                comment = re.search(rf"#.*?({MARK})", line)
                yield words, title or (comment[1] if comment else "")


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each ``salip-ray`` command in a page's text that has an option."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for line in re.findall(r"`(salip-ray [^`]* --[^`]*)`", text):
        yield shlex.split(line.replace("\n", " "))


def field_exists(name: str) -> bool:
    """Return True if ``section.field`` is a setting of the configuration."""
    model: type[BaseModel] | None = Config
    for part in name.split("."):
        if part == "*":  # pools.*.size: any of the pools
            part = "propose"
        if model is None or part not in model.model_fields:
            return False
        annotation = model.model_fields[part].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        model = nested[0] if nested else None
    return True


def assignments(words: list[str]) -> list[str]:
    """Return the values of ``--set`` in a command line of any program."""
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--set"]


@pages
def test_commands_of_the_page_parse_and_settings_are_valid(page):
    for words in [*shell_lines(page), *inline_commands(page)]:
        if words[0] == "salip-ray" and not PLACEHOLDERS & set(words):
            params = parse(words)
            if given := params.get("assignments"):
                load_config("lungs", preset=params.get("preset"), overrides=given)


@pages
def test_task_of_a_command_ships_or_is_shown_on_the_page(page):
    files = dict(re.findall(r"```yaml\n# (\S+\.yaml)\b.*\n((?:.*\n)*?)```", page.read_text()))
    for words in shell_lines(page):
        if words[0] == "salip-ray" and "--config" in words and words[1] != "consensus":
            name = words[words.index("--config") + 1]
            if name in files:
                load_config(yaml.safe_load(files[name]))
            elif name not in MADE_BY_COMMANDS:
                load_config(name)


@pages
def test_options_in_the_text_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    scripts = "".join(path.read_text() for path in (ROOT / "jobs").glob("*.py"))
    scripts += "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for option in re.findall(r"`(--[a-z][a-z-]+)", text):
        known = option in OPTIONS or f'"{option}"' in scripts
        words = option.removeprefix("--").replace("-", "_")
        foreign = option in {"--extra-index-url", "--target", "--build-arg", "--exclusive"}
        assert known or foreign or f"    {words}:" in scripts, option


@pages
def test_settings_in_the_text_exist(page):
    text = page.read_text()
    names = re.findall(r"`(?:--set )?((?:\w+\.)(?:[a-z_*]+\.)*[a-z_*]+)(?:[=` ]|: )", text)
    for name in names:
        if name.partition(".")[0] in SECTIONS and not name.endswith((".json", ".parquet", ".py")):
            assert field_exists(name), name


@pages
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, f"{target}#{anchor}"
    for path in re.findall(r"\b(?:infra|benchmarks|jobs|configs|tests|training)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


@pages
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert (name[0] or name[1]) in targets, name


@pages
def test_commands_of_ray_exist(page):
    from ray.scripts.scripts import cli

    for words in shell_lines(page):
        if words[0] == "ray":
            assert words[1] in cli.commands, words


@pages
def test_mark_of_a_command_names_a_need(page):
    for words, mark in marked_lines(page):
        assert not mark or re.fullmatch(MARK, mark), words


@pages
def test_every_command_is_run_by_a_test_or_marked(page):
    """Those of ``salip-ray`` run in ``tests/unit/cli/test_documented_commands.py``, or as a job."""
    for words, mark in marked_lines(page):
        if not mark and words[0] not in {"salip-ray", "export", "."}:
            assert " ".join(words).startswith(tuple(RUN_ELSEWHERE)), words


def test_pictures_of_pages_are_small():
    pictures = [p for p in (ROOT / "docs").iterdir() if p.suffix in {".png", ".webp", ".svg"}]
    large = [p.name for p in pictures if p.stat().st_size > 500_000]
    assert not large, "convert them with tools/webp.py"


# ------------------------------------------------------------------- the checks see a mistake


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (test_commands_of_the_page_parse_and_settings_are_valid, "```sh\nsalip-ray lable a b\n```"),
        (
            test_task_of_a_command_ships_or_is_shown_on_the_page,
            "```sh\nsalip-ray label a b --config lung\n```",
        ),
        (
            test_task_of_a_command_ships_or_is_shown_on_the_page,
            "```yaml\n# mine.yaml\ntask: {}\n```\n```sh\nsalip-ray show a --config mine.yaml\n```",
        ),
        (
            test_commands_of_the_page_parse_and_settings_are_valid,
            "```sh\nsalip-ray label a b --config lungs --set propose.points=3\n```",
        ),
        (
            test_commands_of_the_page_parse_and_settings_are_valid,
            "Use `salip-ray label a b --no-such-option`.",
        ),
        (test_options_in_the_text_exist, "Add `--extendd`."),
        (test_settings_in_the_text_exist, "`retrieve.sam_priority` is 0."),
        (test_settings_in_the_text_exist, "`--set pools.*.sizes=3`"),
        (test_links_and_paths_exist, "[there](no-such-page.md)"),
        (test_links_and_paths_exist, "see benchmarks/no_such_file.py"),
        (test_make_targets_exist, "`make everything`"),
        (test_every_command_is_run_by_a_test_or_marked, "```sh\nkubectl apply\n```"),
        (test_mark_of_a_command_names_a_need, '```sh title="slow"\nsalip-ray tasks\n```'),
        (test_commands_of_ray_exist, "```sh\nray upp cluster.yaml\n```"),
    ],
)
def test_mistake_in_a_page_is_reported(check, text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}\n")
    with pytest.raises(Exception, match=r"."):
        check(page)


def test_every_shell_block_is_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nsalip-ray a \\\n  --b c  # comment\n```\n1. x\n\n   ```sh\n   ray d\n   ```\n"
    )
    assert list(shell_lines(page)) == [["salip-ray", "a", "--b", "c"], ["ray", "d"]]


def test_mark_is_the_title_of_a_block_or_in_a_comment(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```sh title="needs Docker"\na\n```\n```sh\nb\nc  # x; needs weights\n```\n')
    assert list(marked_lines(page)) == [
        (["a"], "needs Docker"),
        (["b"], ""),
        (["c"], "needs weights"),
    ]
