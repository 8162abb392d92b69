"""``salip-ray reproduce`` on tiny copies of the three datasets, with the bundled models."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from tests.conftest import ROOT
from tests.reproduction.datasets import DATASETS, write_dataset
from tests.reproduction.in_process import without_ray

#: One image per shard, so that a run can be killed between two commits.
TINY = (
    *("image.long_side=64", "run.rows_per_shard=1"),
    *("propose.points_per_side=3", "propose.crop_n_layers=0", "propose.stability_score_thresh=0"),
)
METHODS = ("cascade", "gt_sam", "unprompted_confident", "unprompted_largest")
#: Files of each dataset, how many of them the searches use, and slices of each file.
SIZES = {"lungs": (7, 5, 1), "fetal-head": (7, 5, 1), "brain": (3, 2, 6)}
IN_PROCESS = (
    "from tests.reproduction.in_process import without_ray; without_ray(); "
    "from salip_ray.cli import app; app()"
)


def command(dataset: str, data: Path, prompts: Path, output: Path) -> list[str]:
    given = [dataset, data, "--weights", "bundled", "--prompts", prompts, "--output", output]
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["reproduce", *map(str, given), *settings, "--quiet"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    return {dataset: write_dataset(dataset, folder) for dataset in DATASETS}


@pytest.fixture
def reproduce(one_thread, datasets, monkeypatch):
    """Return a function that runs the command on a dataset, and returns what it printed."""
    without_ray(monkeypatch.setattr)

    def reproduce(dataset, output):
        arguments = command(dataset, *datasets[dataset], output)
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return reproduce


def times_of(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("shards/*.parquet")}


def check_figures(dataset: str, output: Path) -> None:
    """Check that every file or slice has a figure of every method, run and scoring."""
    with (output / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter((row["run"], row["scoring"]) for row in rows if row["method"] == "cascade")
    files, searched, slices = SIZES[dataset]
    assert counts == {
        ("faithful", "published"): files * slices,
        ("ours", "published"): (files - searched) * slices,
        ("faithful", "ours"): files - searched,
        ("ours", "ours"): files - searched,
    }
    assert len(rows) == len(METHODS) * counts.total()
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


@pytest.mark.parametrize("dataset", ["brain", "fetal-head"])
def test_the_table_is_written_and_a_second_run_repeats_nothing(reproduce, tmp_path, dataset):
    printed = reproduce(dataset, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert f", n {SIZES[dataset][0]} |" in table
    check_figures(dataset, tmp_path)
    before = times_of(tmp_path)
    assert table in reproduce(dataset, tmp_path)
    assert times_of(tmp_path) == before


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_figures(reproduce, datasets, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reproduce("lungs", whole)
    check_figures("lungs", whole)
    words = [sys.executable, "-c", IN_PROCESS, *command("lungs", *datasets["lungs"], killed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as driver:
        while not list(killed.glob("faithful/shards/*.parquet")) and driver.poll() is None:
            time.sleep(0.02)
        driver.kill()
    committed = times_of(killed)
    assert not (killed / "table.md").exists()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in committed} == committed
    for name in ("table.md", "figures.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_another_reproduction_is_refused_in_the_same_output(datasets, tmp_path):
    arguments = command("fetal-head", *datasets["fetal-head"], tmp_path)
    # The record is the first file, so that no step needs to run.
    (tmp_path / "reproduction.json").write_text('{"job": {"dataset": "lungs"}}')
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "was created by another reproduction" in done.output
    assert 'dataset was "lungs", is "fetal-head"' in done.output
