"""The commands in the pages about clusters are commands that exist, with options that exist."""

from __future__ import annotations

import re
import shlex

import pytest
import typer

from salip_ray.cli import app
from salip_ray.config import load_config
from tests.conftest import ROOT

PAGES = ("cluster", "aws", "kubernetes", "slurm", "scale")


def commands(page):
    """The lines of a page's shell blocks, continued ones joined and comments cut off."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def parsed(words):
    """The command's parameters as the command line would take them; nothing is run."""
    command = typer.main.get_command(app)
    arguments = words[1:]
    while hasattr(command, "commands"):
        name = arguments.pop(0)
        assert name in command.commands, f"salip-ray has no command {name}"
        command = command.commands[name]
    return command.make_context(words[0], list(arguments)).params


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_types_is_understood(page):
    seen = 0
    for words in commands(page):
        if words[0] == "salip-ray":
            params = parsed(words)
            seen += 1
            if assignments := params.get("assignments"):
                load_config("lungs", preset=params.get("preset"), overrides=assignments)
    assert seen or page in ("kubernetes", "slurm", "scale")


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_a_command_in_the_text_is_understood(path):
    for line in re.findall(r"`(salip-ray [^`]* --[^`]*)`", path.read_text()):
        if "..." not in line:
            parsed(shlex.split(line))


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_links_and_names_is_there(page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"\b(?:infra|benchmarks|jobs)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


def test_a_wrong_option_is_seen():
    with pytest.raises(Exception, match="no-such-option"):
        parsed(["salip-ray", "submit", "a", "b", "--no-such-option"])


def test_rays_own_commands_exist():
    from ray.scripts.scripts import cli

    for page in PAGES:
        for words in commands(page):
            if words[0] == "ray":
                assert words[1] in cli.commands, words
