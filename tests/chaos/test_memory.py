"""A machine without memory: Ray's memory monitor kills every worker."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from tests.chaos.harness import draw_images
from tests.conftest import SMALL


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
    last = done.stderr.strip().splitlines()[-1]
    assert "workers died in sequence, and no image was done" in last
    assert "Ray's memory monitor killed" in last
    assert "Run the same command again to resume" in last
