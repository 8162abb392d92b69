"""The version is the same wherever it is written, and the changelog has a section of it."""

from __future__ import annotations

import re
import tomllib

import yaml

import salip_ray
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_all_files_name_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert salip_ray.__version__ == PROJECT["version"] == str(citation["version"])


def test_changelog_has_the_version_and_its_date():
    """The first section is that of the version, or of changes that come after it."""
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.*?)\](?: - (\S+))?$", text, re.MULTILINE)
    released = [section for section in sections if section[0] != "Unreleased"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert released[0] == (PROJECT["version"], str(citation["date-released"]))
    assert sections.index(released[0]) <= 1
