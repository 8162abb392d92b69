"""Too little memory: Ray's memory monitor kills every worker, or a limit refuses allocations."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from benchmarks.bombs import png
from tests.chaos.harness import Job, draw_images, small_cluster
from tests.conftest import ROOT, SMALL


@pytest.mark.slow
def test_job_whose_workers_are_all_killed_for_memory_ends_with_an_explanation(tmp_path):
    images = draw_images(tmp_path / "images", 60)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    # The monitor of a local Ray finds more memory in use than it allows, whatever is in use.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_memory_usage_threshold": "0.0", "RAY_memory_monitor_refresh_ms": "100"}
    env |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "salip_ray", "label", images, tmp_path / "labels"]
    command += ["--config", "lungs", *settings]
    done = subprocess.run(
        [*map(str, command)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("salip-ray: ")]
    assert len(messages) == 1, done.stderr
    assert "workers died in sequence, and no image was done" in messages[0]
    assert "Ray's memory monitor killed" in messages[0]
    assert "Run the same command again to resume" in messages[0]


_LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.chaos import fuzzing
from salip_ray import load_config
fuzzing.config = lambda: load_config("lungs")
resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
for (row,) in fuzzing.rows_of([Path(name) for name in sys.argv[1:]]):
    print(json.dumps([row["status"], row["error"]]))
"""


@pytest.mark.slow
def test_image_that_does_not_fit_into_two_gib_is_an_error_row_with_a_reason(tmp_path):
    sizes = {"before.png": 64, "large.png": 17_000, "behind.png": 64}
    for name, side in sizes.items():
        (tmp_path / name).write_bytes(png(side))
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, *(str(tmp_path / name) for name in sizes)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    before, large, behind = (json.loads(line) for line in done.stdout.splitlines())
    assert before == behind == ["ok", None]
    assert large[0] == "error"
    assert large[1]["type"] == "MemoryError"
    assert "the memory of the worker ran out" in large[1]["message"]


@pytest.mark.slow
def test_job_whose_workers_have_two_gib_ends_in_rows_with_reasons(tmp_path):
    images = draw_images(tmp_path / "images", 6)
    for side in (4_000, 17_000):
        (images / f"{side}.png").write_bytes(png(side))
    output, work = tmp_path / "labels", tmp_path / "work"
    work.mkdir()
    with small_cluster(nodes=1) as cluster:
        job = Job(cluster.address, str(images), str(output), output, work, hook="limited")
        job.start()
        assert job.wait(), (work / "driver.log").read_text()
    rows = {
        row["uri"].rpartition("/")[2]: row for row in pq.read_table(output / "shards").to_pylist()
    }
    assert len(rows) == 8
    large = rows.pop("17000.png")
    assert (large["status"], large["error"]["type"]) == ("error", "MemoryError")
    assert "the memory of the worker ran out" in large["error"]["message"]
    assert not [row["error"] for row in rows.values() if row["error"]]
