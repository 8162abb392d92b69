"""Log lines of a job, and the progress line for users."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

from rich.console import Console

from salip_ray.pipeline.monitoring import telemetry
from salip_ray.pipeline.monitoring.monitor import Snapshot, StageReporter
from salip_ray.pipeline.monitoring.progress import Pace, ProgressReporter, Workload

ERROR = {"stage": "decode", "type": "ImageError", "message": 'of "no" bytes\n'}
ROW = {"shard": 7, "image_id": "ab", "uri": "s3://b/ü.png"}


def test_an_error_row_is_logged_with_run_shard_and_image(caplog):
    caplog.set_level(logging.INFO, "salip_ray")
    StageReporter(run="r1").done("fetch", 0.1, error=ERROR, row=ROW)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("salip_ray", logging.WARNING)
    assert record.getMessage() == "image_error"
    assert record.fields == {"run": "r1", **ERROR, **ROW}


def test_a_good_row_is_not_logged_and_unknown_fields_are_left_out(caplog):
    caplog.set_level(logging.INFO, "salip_ray")
    StageReporter(run="r1").done("fetch", 0.1, row={"shard": 7})
    telemetry.log_event("shard_committed", run="r1", shard=None)
    (record,) = caplog.records
    assert record.fields == {"run": "r1"}


def test_a_line_is_one_json_object():
    record = logging.LogRecord("salip_ray", logging.WARNING, "f", 1, "image_error", (), None)
    record.fields = {**ERROR, **ROW}
    line = telemetry.JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {"level": "WARNING", "event": "image_error", **ERROR, **ROW}


CODE = """
import logging, sys
from salip_ray.pipeline.monitoring.telemetry import log_event
if len(sys.argv) > 1:
    logging.basicConfig(format="MINE %(message)s", level="INFO")
log_event("shard_committed", shard=3)
"""


def stderr_of(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_logging_that_the_user_configured_is_used_and_json_is_the_default():
    assert json.loads(stderr_of())["event"] == "shard_committed"
    assert stderr_of("configured") == "MINE shard_committed\n"


def test_pace_is_that_of_the_last_minute():
    assert Pace(60, 120).since(Pace(0, 0), 12_120) == "; 2.0 images/s, 100 min left"
    assert Pace(120, 360).since(Pace(60, 120), 400) == "; 4.0 images/s"
    assert Pace(120, 120).since(Pace(60, 120), 400) == ""


def last_line(error=None):
    text = io.StringIO()
    reporter = ProgressReporter(console=Console(file=text, width=200))
    late = Snapshot(rows={"fetch": 3, "refine": 1}, committed=0)
    try:
        with reporter.watch(Workload(["fetch", "refine"], 3, 1), lambda: late):
            if error:
                raise error
    except RuntimeError:
        pass
    return text.getvalue().splitlines()[-1].partition("] ")[2]


def test_the_last_line_of_a_good_run_counts_everything_although_tallies_are_late():
    assert last_line().startswith("fetch 3, refine 3 of 3 images; 1 of 1 shard committed")
    assert last_line(RuntimeError()).startswith("fetch 3, refine 1 of 3 images; 0 of 1 shard")
