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

#: One image per shard, so that a run can be killed between two commits.
TINY = ("image.long_side=64", "run.rows_per_shard=1", "pools.propose.size=1")
METHODS = ("cascade", "gt_sam", "unprompted_confident", "unprompted_largest")


def command(dataset: str, data: Path, prompts: Path, output: Path) -> list[str]:
    given = [dataset, data, "--weights", "bundled", "--prompts", prompts, "--output", output]
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["reproduce", *map(str, given), *settings]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    return {dataset: write_dataset(dataset, folder) for dataset in DATASETS}


def times_of(output: Path) -> dict[Path, int]:
    shards = output.rglob("shards/*.parquet")
    return {path: path.stat().st_mtime_ns for path in shards}


def counts_of(output: Path) -> Counter[tuple[str, str]]:
    """Return the number of figures of the cascade, by run and scoring."""
    with (output / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter((row["run"], row["scoring"]) for row in rows if row["method"] == "cascade")
    assert len(rows) == len(METHODS) * counts.total()
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    return counts


#: Files in each dataset, and those that only the published run scores; slices of each file.
SIZES = {"lungs": (7, 5, 1), "fetal-head": (7, 5, 1), "brain": (3, 2, 6)}


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_the_table_is_written_and_a_second_run_repeats_nothing(
    local_ray, datasets, tmp_path, dataset
):
    arguments = command(dataset, *datasets[dataset], tmp_path)
    done = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = (tmp_path / "table.md").read_text()
    assert table in done.output
    files, searched, slices = SIZES[dataset]
    assert counts_of(tmp_path) == {
        ("faithful", "published"): files * slices,
        ("ours", "published"): (files - searched) * slices,
        ("faithful", "ours"): files - searched,
        ("ours", "ours"): files - searched,
    }
    assert f"), n {files} |" in table
    before = times_of(tmp_path)
    assert len(before) >= 2 * slices
    again = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert times_of(tmp_path) == before
    assert (tmp_path / "table.md").read_text() == table


def test_a_killed_run_resumes_to_the_same_figures(local_ray, datasets, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = command("lungs", *datasets["lungs"], whole)
    done = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    words = [sys.executable, "-m", "salip_ray", *command("lungs", *datasets["lungs"], killed)]
    # A Ray of its own, which dies with the driver.
    own = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment = {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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


def test_another_reproduction_is_refused_in_the_same_output(local_ray, datasets, tmp_path):
    arguments = command("fetal-head", *datasets["fetal-head"], tmp_path)
    # Without a step run: the record is the first file.
    (tmp_path / "reproduction.json").write_text('{"job": {"dataset": "lungs"}}')
    done = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert done.exit_code == 2
    assert "was created by another reproduction" in done.output
    assert 'dataset was "lungs", is "fetal-head"' in done.output
