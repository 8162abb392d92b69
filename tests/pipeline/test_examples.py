"""The examples in the docstrings of the public API run and give what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import salip_ray
from salip_ray.cli.demo import draw_phantoms

#: ``label`` comes first: the other examples read its output.
LATER = [name for name in salip_ray.__all__ if name != "label"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with three phantoms in ``xrays`` and their masks in ``masks``."""
    folder = tmp_path_factory.mktemp("examples")
    draw_phantoms("chest_xray", 3, folder)
    (folder / "images").rename(folder / "xrays")
    return folder


def run_examples(name: str) -> doctest.TestResults:
    """Run the examples of one public name, in the current folder."""
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for test in finder.find(getattr(salip_ray, name), name, globs={}):
        runner.run(test, out=report.append)
    results = runner.summarize(verbose=False)
    assert not results.failed, "".join(report)
    return results


@pytest.fixture(scope="module")
def labelled(local_ray, folder) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_examples("label").attempted
    return folder


@pytest.mark.parametrize("name", LATER)
def test_example_of_the_public_api_runs(name, labelled, monkeypatch):
    monkeypatch.chdir(labelled)
    assert run_examples(name).attempted, f"{name} has no example"
