"""``show`` and ``doctor`` with the models of another package."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.models.bundled.phantoms import make_phantom

TOY = Path(__file__).resolve().parents[2] / "pipeline" / "toy"
MODELS = {f"{role}.model": f"toy_models:{role}" for role in ("propose", "retrieve", "refine")}


@pytest.fixture
def salip(one_thread, monkeypatch, tmp_path):
    """Return a function that runs a command in an empty folder, and returns what it prints."""
    monkeypatch.syspath_prepend(TOY)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        values = {**MODELS, "image.long_side": "96"}
        settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        done = CliRunner().invoke(app, [*arguments, "--config", "lungs", *settings])
        assert done.exit_code == 0, done.output
        return done.output

    return run


@pytest.fixture
def image(tmp_path):
    picture = make_phantom("chest_xray", 0, bank="tune", size=96).image
    cv2.imwrite(str(tmp_path / "xray.png"), picture[..., ::-1])
    return str(tmp_path / "xray.png")


def test_show_draws_the_steps(salip, image, tmp_path):
    assert "lungs: labelled" in salip("show", image)
    assert cv2.imread(str(tmp_path / "xray.walk.png")) is not None


def test_doctor_names_their_code(salip):
    assert "propose toy_models:propose" in salip("doctor")
