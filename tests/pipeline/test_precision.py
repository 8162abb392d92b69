"""The precision of a job is recorded, and a job does not continue with another one."""

from __future__ import annotations

import json

import pytest

from salip_ray import ResumeError, label


def test_job_records_its_precision_and_refuses_to_continue_with_another(
    local_ray, images, small_config, tmp_path
):
    config = small_config()
    label(images, tmp_path / "out", config, quiet=True)
    run_file = tmp_path / "out" / "run.json"
    run = json.loads(run_file.read_text())
    assert run["precision"] == "exact"
    assert run["fingerprint"]["recipe"]["run"]["precision"] == "auto"

    (tmp_path / "out" / "shards" / "part-00000.parquet").unlink()
    run_file.write_text(json.dumps({**run, "precision": "fast"}))
    with pytest.raises(ResumeError, match="precision fast"):
        label(images, tmp_path / "out", config, quiet=True)
    run_file.write_text(json.dumps(run))
    assert label(images, tmp_path / "out", config, quiet=True).images == 11
