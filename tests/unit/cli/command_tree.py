"""Every command of ``salip-ray``, and how a typed command line is parsed without being run."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from salip_ray.cli import app


def all_commands() -> dict[str, Any]:
    """Return every command by its full name, groups included (``""``, ``"label"``, ...)."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for child, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {child}".strip(), inner)

    return dict(walk("", typer.main.get_command(app)))


def parse(words: list[str]) -> dict[str, Any]:
    """Return the parameters of a typed command line; nothing is run.

    Raises:
        Exception: a command, option or value does not exist, or a required one is missing.
    """
    command: Any = typer.main.get_command(app)
    name, *arguments = words
    while hasattr(command, "commands"):
        child = arguments.pop(0)
        assert child in command.commands, f"salip-ray has no command {child}"
        command = command.commands[child]
    return dict(command.make_context(name, arguments).params)


def examples(command: Any) -> list[list[str]]:
    """Return the example command lines of a help text, split into words."""
    text = inspect.cleandoc(command.help or "")
    lines = re.findall(r"^Example: (salip-ray .*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]
