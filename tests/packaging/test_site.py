"""The documentation site: complete, without dead links, and without requests to other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import salip_ray
from salip_ray.config import Config
from tests.browser import started_browser
from tests.conftest import ROOT
from tests.unit.cli.command_tree import all_commands

BUILT = ROOT / "build"


@pytest.fixture(scope="module")
def site() -> Path:
    bin_folder = Path(sys.executable).parent
    subprocess.run([sys.executable, "tools/build_docs.py"], cwd=ROOT, check=True)
    done = subprocess.run(
        [bin_folder / "zensical", "build", "--strict", "--clean"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "site"


class Links(HTMLParser):
    """Collects the ids, links and loaded resources of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values: dict[str, str] = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag in {"img", "script", "iframe"} and "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loaded.append(values.get("href", ""))


def parsed(site: Path) -> dict[Path, Links]:
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def nav_pages(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from nav_pages(value)


def test_every_page_is_in_the_navigation(site):
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assembled = {p.relative_to(BUILT / "docs").as_posix() for p in (BUILT / "docs").rglob("*.md")}
    assert set(nav_pages(nav)) == assembled


def test_links_lead_to_pages_and_anchors_that_exist(site):
    pages = parsed(site)
    dead = []
    for page, content in pages.items():
        for link in [*content.links, *content.loaded]:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or page.name == "404.html":
                continue
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                anchor and target in pages and anchor not in pages[target].ids
            ):
                dead.append(f"{page.name}: {link}")
    assert not dead


def test_numbered_steps_are_items_of_their_list(site):
    """Python-Markdown wants four spaces below a step, and an empty line before the next."""
    for page in site.rglob("*.html"):
        assert not re.search(r"\s\d\. <strong>", page.read_text(encoding="utf-8")), page.name


def test_lists_are_no_text_of_a_paragraph(site):
    """Python-Markdown wants an empty line before a list."""
    for page in site.rglob("*.html"):
        paragraphs = re.findall(r"<p>(.*?)</p>", page.read_text(encoding="utf-8"), re.DOTALL)
        assert not [text for text in paragraphs if re.search(r"^ *[-*] ", text, re.MULTILINE)], page


@pytest.mark.browser
def test_phone_shows_options_in_one_piece_and_scrolls_no_page_sideways(site):
    with started_browser() as browser:
        page = browser.new_page(viewport={"width": 375, "height": 800})
        for name in ("index", "label", "own-organ", "reliability", "speed"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
            options = page.locator(".language-sh code .option")
            lines = options.evaluate_all("all => all.map(one => one.getClientRects().length)")
            assert lines
            assert set(lines) == {1}


def test_no_page_loads_anything_from_another_host(site):
    loaded = [link for content in parsed(site).values() for link in content.loaded]
    assert loaded
    assert not [link for link in loaded if link.startswith(("http:", "https:", "//"))]


def test_reference_has_every_command_option_setting_and_export(site):
    reference = BUILT / "docs" / "reference"
    commands = (reference / "commands.md").read_text()
    for name, command in all_commands().items():
        if not hasattr(command, "commands"):
            assert f"## salip-ray {name}\n" in commands
        assert not [
            p.opts[0]
            for p in command.params
            if p.opts[0][:2] == "--" and p.opts[0] not in commands and not p.hidden and name
        ]
    settings = (reference / "settings.md").read_text()
    for section, field in Config.model_fields.items():
        assert not [
            key for key in field.annotation.model_fields if f"`{section}.{key}`" not in settings
        ]
    python = (site / "reference" / "python.html").read_text()
    assert not [name for name in salip_ray.__all__ if f'id="{name.lower()}"' not in python]
