"""The version is the same wherever it is written, and the changelog has a section of it."""

from __future__ import annotations

import re
import tomllib

import yaml

import salip_ray
from salip_ray.cluster import machine_checks
from salip_ray.output import run_record
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_all_files_name_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert salip_ray.__version__ == PROJECT["version"] == str(citation["version"])


def test_records_name_the_version_of_the_code(monkeypatch):
    """Not that of an editable installation's metadata, which an upgrade of the code leaves."""
    for module in (run_record, machine_checks):
        monkeypatch.setattr(module, "VERSION", "9.9")
    assert run_record.package_versions()["salip-ray"] == "9.9"
    assert "salip-ray 9.9" in machine_checks.versions()


def test_changelog_has_the_version_and_its_date():
    """The first section is that of the version, or of changes that come after it."""
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.*?)\](?: - (\S+))?$", text, re.MULTILINE)
    released = [section for section in sections if section[0] != "Unreleased"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert released[0] == (PROJECT["version"], str(citation["date-released"]))
    assert sections.index(released[0]) <= 1
