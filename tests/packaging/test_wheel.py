"""The wheel works alone, outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
#: A path set for other processes would let the checkout stand in for the wheel; without bytecode
#: the demo's processes would each compile torch for themselves.
_LEFT_OUT = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


def run(*command: object, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k not in _LEFT_OUT}, **env},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    # Without options, the wheel is built from the source distribution, which must be complete.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT, cwd=ROOT)
    (built,) = dist.glob("*.whl")
    return built


def test_wheel_has_weights_prompts_and_configs_and_no_other_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "salip_ray/models/bundled/sam.safetensors",
        "salip_ray/models/bundled/clip.safetensors",
        "salip_ray/models/bundled/vocabulary.json",
        "salip_ray/py.typed",
        "salip_ray/report/templates/report.html",
        "salip_ray/report/templates/report.css",
        "salip_ray/report/templates/report.js",
        "salip_ray/_configs/lungs.yaml",
        "salip_ray/_configs/prompts/lungs.json",
        "salip_ray/_configs/presets/paper-2d.yaml",
    ):
        assert needed in names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"salip_ray"}


def test_bundled_weights_stay_small(wheel):
    weights = [i for i in zipfile.ZipFile(wheel).infolist() if i.filename.endswith(".safetensors")]
    assert len(weights) == 2
    assert sum(info.file_size for info in weights) <= 15_000_000


def test_demo_runs_with_the_installed_wheel(wheel, tmp_path):
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    run(
        *(UV, "pip", "install", "--quiet", "--python", python),
        *("--constraint", ROOT / "requirements.lock", wheel),
        cwd=tmp_path,
    )
    where = run(python, "-c", "import salip_ray; print(salip_ray.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))

    run(python.with_name("salip-ray"), "demo", "--images", "3", cwd=tmp_path)

    scores = json.loads((tmp_path / "demo-output" / "evaluation.json").read_text())
    assert set(scores["classes"]) == {"lungs", "heart", "head", "brain", "fetal head"}
    for methods in scores["classes"].values():
        assert methods["cascade"]["n"] == 3
    assert (tmp_path / "demo-output" / "overview.png").stat().st_size > 10_000
    report = (tmp_path / "demo-output" / "report.html").read_text()
    assert report.count("data:image/webp;base64,") == 9
