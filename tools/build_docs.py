"""Assemble the documentation site: ``make docs``.

Usage:
    python tools/build_docs.py [--output build/docs]

Copies the pages of ``docs/`` and the tables that they link to, makes pages of the notebooks, and
writes the reference pages from the code: commands, configuration and Python API. ``zensical build``
then makes ``site/`` of the result. Nothing is fetched from a network.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from docstring_roles import without_roles
from notebook_pages import write_page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import salip_ray
from salip_ray.cli import app
from salip_ray.config import Config

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "reference"
#: Files outside of docs/ that pages link to -> where the site has them.
LINKED = {
    "salip_ray/models/bundled/README.md": f"{REFERENCE}/model-card.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_RESULTS = "benchmarks/results"
#: How the page of settings names values with a range.
_TYPES = """
A *Positive* is a whole number above 0, a *Fraction* a number from 0 to 1, a *Percent* one from 0
to 100, and a *TopK* a Positive or `all`."""


def command_page() -> str:
    """Return the page of all commands, from their help texts."""
    lines = ["# Commands", "", "Each command also prints this with `--help`."]
    for name, command in walk("salip-ray", typer.main.get_command(app)):
        if hasattr(command, "commands"):
            continue
        text = inspect.cleandoc(command.help or "")
        text = re.sub(r"^Example: (.*)$", r"```sh\n\1\n```", text, flags=re.MULTILINE)
        lines += ["", f"## {name}", "", text]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        for title, params in (("Argument", arguments), ("Option", options)):
            if params:
                lines += ["", f"| {title} | Default | Meaning |", "| --- | --- | --- |"]
                lines += [parameter_row(param) for param in params]
    return "\n".join(lines) + "\n"


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and all below it, with their full names."""
    yield name, command
    for child, inner in sorted(getattr(command, "commands", {}).items()):
        yield from walk(f"{name} {child}", inner)


def parameter_row(param: Any) -> str:
    """Return a table row for an argument or option of a command."""
    if param.param_type_name == "argument":
        name = param.metavar or param.name.upper()
    else:
        value = "" if param.is_flag else f" {param.metavar or 'VALUE'}"
        name = ", ".join([*param.opts, *param.secondary_opts]) + value
    default = "required" if param.required else ""
    if not param.required and param.default not in (None, False, (), []):
        default = f"`{param.default}`"
    return f"| `{cell(name)}` | {cell(default)} | {cell(param.help or '')} |"


def config_page() -> str:
    """Return the page of all settings, from the typed sections of the configuration."""
    lines = ["# Settings", "", inspect.cleandoc(Config.__doc__ or "")]
    lines += ["", "Set a field with `--set section.field=value`, or in a YAML file.", _TYPES]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        lines += ["", f"## {name}", "", plain(inspect.cleandoc(section.__doc__ or "")), ""]
        lines += ["| Field | Type | Default |", "| --- | --- | --- |"]
        lines += [field_row(section, f"{name}.{k}", f) for k, f in section.model_fields.items()]
    return "\n".join(lines) + "\n"


def field_row(section: type[BaseModel], path: str, field: FieldInfo) -> str:
    """Return a table row for a field of the configuration; ``path`` is ``section.field``."""
    annotations = [inspect.get_annotations(base) for base in section.__mro__]
    kind = next(
        by_name[name] for by_name in annotations if (name := path.partition(".")[2]) in by_name
    )
    kind = re.sub(r"Annotated\[(\w+), Field\((.*?)\)\]", r"\1 (\2)", kind)
    if field.is_required():
        default = "required"
    elif field.default is PydanticUndefined:
        default = "`{}`"
    else:
        default = "null" if field.default is None else f"`{field.default}`"
    return f"| `{path}` | {cell(kind)} | {default} |"


def api_page() -> str:
    """Return the page of the public API; mkdocstrings fills in the docstrings."""
    lines = ["# Python", "", plain(inspect.cleandoc(salip_ray.__doc__ or ""))]
    for name in salip_ray.__all__:
        value = getattr(salip_ray, name)
        lines += ["", f"## {name}", "", f"::: {value.__module__}.{value.__qualname__}"]
        lines += ["    options:", "      show_root_heading: false"]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return a docstring as Markdown: roles and double backticks become code."""
    return without_roles(text).replace("``", "`")


def cell(text: str) -> str:
    """Return a text for a table cell."""
    return plain(text).replace("|", r"\|").replace("\n", " ")


def copied_files() -> dict[Path, Path]:
    """Return the files that the site takes over, with their paths in it."""
    files = {ROOT / source: Path(target) for source, target in LINKED.items()}
    for folder, target in (("docs", "."), (_RESULTS, "results")):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file():
                name = Path(target) / path.relative_to(ROOT / folder)
                files[path] = name.with_suffix(".md") if path.suffix == ".ipynb" else name
    return files


def copy_files(output: Path) -> None:
    """Write all files that the site takes over, and correct the links of pages."""
    files = copied_files()
    for source, target in files.items():
        path = output / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            notebook = source.suffix == ".ipynb"
            text = write_page(source, path) if notebook else source.read_text(encoding="utf-8")
            path.write_text(with_site_links(text, source, files), encoding="utf-8")
        else:
            shutil.copyfile(source, path)


def with_site_links(text: str, source: Path, files: dict[Path, Path]) -> str:
    """Return a page whose links lead to files of the site; other files are named only."""

    def replaced(match: re.Match[str]) -> str:
        path = (source.parent / match["path"]).resolve()
        if path in files:
            link = os.path.relpath(files[path], files[source].parent)
            return f"[{match['text']}]({link}{match['anchor'] or ''})"
        return match["text"] if path.exists() else match[0]

    pattern = r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)]*)?\)"
    return re.sub(pattern, replaced, text)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    output: Path = parser.parse_args().output
    shutil.rmtree(output, ignore_errors=True)
    copy_files(output)
    pages = {
        "commands": command_page(),
        "settings": config_page(),
        "python": api_page(),
    }
    for name, text in pages.items():
        (output / REFERENCE / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
