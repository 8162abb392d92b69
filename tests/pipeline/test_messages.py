"""What a run prints: nothing alarming if all is well, one line if it cannot start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.conftest import ROOT, SMALL


def label(images, output, *options, **environment):
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    settings = [part for setting in SMALL for part in ("--set", setting)]
    command = [sys.executable, "-m", "salip_ray", "label", str(images), str(output)]
    command += ["--config", "lungs", *settings, "--set", "run.max_error_share=1", *options]
    return subprocess.run(
        command,
        env={**inherited, "RAY_worker_niceness": "0", "COLUMNS": "200", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_healthy_run_prints_nothing_alarming(images, tmp_path):
    done = label(images, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("11 images in 3 shards")
    assert re.match(r"starting Ray and the models \(run \w+\)", lines[1])
    last = [line for line in lines if line.startswith("[")][-1]
    assert "] fetch 11, propose 11, retrieve 11, refine 11 of 11 images; 3 of 3 shards" in last
    assert f"11 images in {tmp_path / 'out'}" in lines
    for word in ("WARNING", "ERROR", " E ", "Error", "issues", "Traceback", "enable"):
        assert word not in done.stderr


def test_a_quiet_run_prints_nothing(images, tmp_path):
    done = label(images, tmp_path / "out", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bad_ray_address_is_one_line(images, tmp_path):
    addresses = ["nowhere", "127.0.0.1:9", "ray://127.0.0.1:9", "http://x:1"]

    def run(number):
        return label(images, tmp_path / str(number), "--quiet", RAY_ADDRESS=addresses[number])

    with ThreadPoolExecutor() as pool:  # each waits a while for an answer
        runs = list(pool.map(run, range(len(addresses))))
    for number, done in enumerate(runs):
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"RAY_ADDRESS '{addresses[number]}' cannot be joined" in line
        assert not list((tmp_path / str(number)).glob("shards/*"))
