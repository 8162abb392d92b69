"""The notebooks run, and print what is stored in them; they stay small and name no machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
#: Those that take seconds; the others are slow tests.
QUICK = {"inside-one-image", "quick-start"}
LARGEST = 300_000  # bytes


def check(path: Path) -> subprocess.CompletedProcess[str]:
    import ray

    environment = dict(os.environ)
    if ray.is_initialized():  # its kernel joins the Ray of this session
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, "tools/notebooks.py", "--check", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_notebook_runs_and_prints_what_is_stored(path, local_ray):
    done = check(path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_complete_and_names_no_path_of_a_machine(path):
    assert path.stat().st_size < LARGEST
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert outputs
    texts = ["".join(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs]
    assert not re.search(r"(?<!\w)/(?:\w+/)+\w|\b\d+\.\d+\.\d+\.\d+\b", "\n".join(texts))


@pytest.mark.parametrize(
    ("source", "stored", "problem"),
    [
        ("print('12 cats')", "7 cats", ""),  # numbers depend on the machine
        ("print('12 cats')", "12 dogs", "code cell 1 printed '0 cats\\n'"),
        ("1 / 0", "12 dogs", "ZeroDivisionError"),
    ],
)
def test_change_of_what_a_notebook_prints_is_reported(source, stored, problem, tmp_path):
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "execution_count": 1,
        "source": source,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": stored + "\n"}],
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}}
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps({**notebook, "nbformat": 4, "nbformat_minor": 5}))
    done = check(path)
    assert done.returncode == (1 if problem else 0), done.stderr
    assert problem in done.stderr
