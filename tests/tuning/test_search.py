"""A tiny search on Ray Tune: it runs, resumes after a stop, and records its images."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output import layout
from salip_ray.output.lease import held
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.pipeline import label
from salip_ray.sources.references import References

TINY = (
    *("--config", "lungs", "--trials", "4", "--images", "5", "--quiet"),
    *("--set", "image.long_side=64", "--set", "run.rows_per_shard=8"),
    *("--set", "task.min_confidence=0"),  # labels of so few points are poor
)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    for index in range(7):
        phantom = make_phantom("chest_xray", index, bank="tune", size=64)
        for name, picture in (
            ("images", phantom.image[:, :, ::-1]),
            ("masks", phantom.mask("lungs").astype(np.uint8) * 255),
        ):
            (folder / name).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name / f"p{index}.png"), picture)
    (folder / "masks" / "p6.png").unlink()
    (folder / "space.yaml").write_text(
        "propose.points_per_side: [2]\n"
        "propose.pred_iou_thresh: {low: 0.0, high: 0.5}\n"
        "retrieve.visual_prompt: [crops, bbox]\n"
    )
    return folder


def words(phantoms: Path, output: Path, *more: str) -> list[str]:
    given = [phantoms / "images", phantoms / "masks", "--output", output, *TINY, *more]
    given += ["--set", "propose.points_per_side=2", "--space", phantoms / "space.yaml"]
    return ["tune", *map(str, given)]


def search(phantoms: Path, output: Path, *more: str):
    return CliRunner().invoke(app, words(phantoms, output, *more), catch_exceptions=False)


def test_search_resumes_and_its_images_are_never_scored(local_ray, phantoms, tmp_path):
    done = search(phantoms, tmp_path / "one")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "one" / "tuning.json").read_text())
    rows = list(csv.DictReader((tmp_path / "one" / "trials.csv").open()))
    assert len(rows) == 4
    assert {row["error"] for row in rows} == {""}
    assert len(results["images"]) == 5
    assert results["best"]["dice"] >= results["untuned"]["dice"]
    assert not list((tmp_path / "one" / layout.TUNING_CACHE).glob("*"))

    # As if stopped before the end: only the missing trial runs again.
    tuned = (tmp_path / "one" / "tuned.yaml").read_text()
    (tmp_path / "one" / "tuned.yaml").unlink()
    (trial,) = (tmp_path / "one" / "trials").glob("1-00000.json")
    trial.unlink()
    before = {path: path.stat().st_mtime_ns for path in trial.parent.iterdir()}
    assert search(phantoms, tmp_path / "one").exit_code == 0
    assert (tmp_path / "one" / "tuned.yaml").read_text() == tuned
    assert json.loads((tmp_path / "one" / "tuning.json").read_text()) == results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = search(phantoms, tmp_path / "one", "--seed", "1")
    assert other.exit_code == 2
    assert "Changed: " in other.output
    assert "seed was 0, is 1" in other.output

    # Labels made with the recipe are scored without the images that chose it.
    from salip_ray import load_config

    config = load_config(tmp_path / "one" / "tuned.yaml")
    label(phantoms / "images", tmp_path / "labels", config, quiet=True)
    references = References.open(str(phantoms / "masks"))
    scored = evaluate_output(LabelOutput.open(str(tmp_path / "labels")), references, surfaces=False)
    reasons = [item.reason for item in scored.unscored]
    assert sorted(reasons) == ["tuned_on"] * 5 + ["without_reference"]
    tuned_on = {item.image_id for item in scored.unscored if item.reason == "tuned_on"}
    assert tuned_on == {image["image_id"] for image in results["images"]}


def test_images_without_references_fail_with_one_line(phantoms, tmp_path):
    empty = tmp_path / "none"
    empty.mkdir()
    cv2.imwrite(str(empty / "other.png"), np.zeros((8, 8), np.uint8))
    given = [phantoms / "images", empty, "--output", tmp_path / "out", *TINY]
    done = CliRunner().invoke(app, ["tune", *map(str, given)])
    assert done.exit_code == 2
    assert "none of the 7 images of" in done.output
    assert "has a reference mask" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


# Runs a search whose process is killed when it calls a function of the module the nth time.
KILLED_SEARCH = """
import os, signal, sys
from salip_ray.cli import app
from salip_ray.tuning import search
name, at, calls, function = sys.argv[1], int(sys.argv[2]), 0, getattr(search, sys.argv[1])
def kill_or_call(*arguments):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments)
setattr(search, name, kill_or_call)
app(sys.argv[3:])
"""


@pytest.mark.slow
def test_killed_search_does_not_block_the_next_one(local_ray, phantoms, tmp_path):
    import ray

    output = tmp_path / "out"
    env = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    # In the second rung; then after tuning.json, before the file that completes the search.
    for name, at in (("_run_trials", "2"), ("task_file", "1")):
        command = [sys.executable, "-c", KILLED_SEARCH, name, at, *words(phantoms, output)]
        killed = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (output / layout.LEASE).exists()
        (output / "trials" / ".0-00000.json.0123456789ab.tmp").write_text("half")
    done = search(phantoms, output)
    assert done.exit_code == 0, done.output
    assert (output / layout.TUNED_TASK).exists()
    assert not (output / layout.LEASE).exists()
    assert not list(output.rglob(".*.tmp"))
    assert not list((output / layout.TUNING_CACHE).glob("*"))


def test_second_search_at_the_same_time_is_refused_before_ray_starts(phantoms, tmp_path):
    with held(Store(tmp_path / "out")):
        done = search(phantoms, tmp_path / "out")
    assert done.exit_code == 2
    assert f"process {os.getpid()}" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())
