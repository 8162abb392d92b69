"""A killed retry, whichever write it is killed at."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_retry_killed_at_any_write_is_completed_by_the_next_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.pipeline.retry_kills", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    # The lease, the seal, the run record, announcement, maps, rows, statistics, summary and seal.
    assert len(kills) >= 2 * 9
    assert sum(kill["temporary_files"] for kill in kills) >= 9
    for kill in kills:
        assert (kill["next"], kill["problems"], kill["equal"]) == (0, [], True), kill
