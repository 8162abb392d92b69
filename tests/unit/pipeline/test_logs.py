"""Log lines for machines, and the line a minute for people."""

from __future__ import annotations

import json

from salip_ray.pipeline import telemetry
from salip_ray.pipeline.monitor import StageReporter
from salip_ray.pipeline.progress import Pace


def test_a_line_is_an_object_with_run_shard_and_image(capsys):
    error = {"stage": "decode", "type": "ImageError", "message": 'of "no" bytes\n'}
    row = {"shard": 7, "image_id": "ab", "uri": "s3://b/ü.png"}
    StageReporter(run="r1").done("fetch", 0.1, error=error, row=row)
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "WARNING", "event": "image_error", "run": "r1", **error, **row}


def test_a_good_row_is_no_line_and_what_is_not_known_no_field(capsys):
    StageReporter(run="r1").done("fetch", 0.1, row={"shard": 7})
    telemetry.log_event("shard_committed", run="r1", shard=None)
    (line,) = capsys.readouterr().err.splitlines()
    assert "shard" not in set(json.loads(line))


def test_the_pace_is_that_of_the_last_minute():
    assert Pace(60, 120).since(Pace(0, 0), 12_120) == "; 2.0 images/s, 100 min left"
    assert Pace(120, 360).since(Pace(60, 120), 400) == "; 4.0 images/s"
    assert Pace(120, 120).since(Pace(60, 120), 400) == ""
