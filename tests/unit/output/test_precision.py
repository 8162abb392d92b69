"""A job has one precision, whatever machines it is resumed on."""

from __future__ import annotations

import json

import pytest

from salip_ray.cluster.resources import Pool, pin_precision
from salip_ray.config import load_config
from salip_ray.errors import ResumeError
from salip_ray.output.run_record import record_precision
from salip_ray.output.store import Store

ROW = {"image_id": "a", "uri": "/in/a.png", "status": "empty"}


def pool(gpus: float) -> Pool:
    return Pool(min_size=1, max_size=1, cpus=1, gpus=gpus, threads=1)


@pytest.mark.parametrize(
    ("settings", "gpus", "expected"),
    [
        ([], 0.0, "exact"),
        ([], 0.5, "fast"),
        (["run.device=cpu"], 0.5, "exact"),
        (["run.device=cuda"], 0.0, "fast"),
        (["run.precision=exact"], 1.0, "exact"),
        (["run.precision=fast"], 0.0, "fast"),
    ],
)
def test_auto_is_resolved_by_the_devices_of_the_pools(settings, gpus, expected):
    config = load_config("lungs", overrides=settings)
    assert pin_precision(config, {"propose": pool(gpus)}).run.precision == expected


@pytest.fixture
def output(write_output):
    """Return an output with one committed shard, and a function that edits its run.json."""
    out = write_output([ROW])
    run_file = out / "run.json"
    run = json.loads(run_file.read_text())
    run["fingerprint"]["manifest"] = {"sha256": "0" * 64, "images": 1}
    run_file.write_text(json.dumps(run))

    def edit(**fields):
        run_file.write_text(json.dumps({**json.loads(run_file.read_text()), **fields}))

    return out, edit


def recorded(out):
    return json.loads((out / "run.json").read_text()).get("precision")


def test_resume_with_the_same_precision_passes_and_is_recorded(output):
    out, _ = output
    record_precision(Store(out), "exact")
    record_precision(Store(out), "exact")
    assert recorded(out) == "exact"


def test_resume_with_another_precision_is_refused_by_name(output):
    out, edit = output
    edit(precision="fast")
    with pytest.raises(ResumeError, match=r"with precision fast, and run\.precision resolves"):
        record_precision(Store(out), "exact")
    assert recorded(out) == "fast"


def test_job_without_committed_shards_may_start_over_with_another_precision(output):
    out, edit = output
    edit(precision="fast")
    next(out.glob("shards/*.parquet")).unlink()
    record_precision(Store(out), "exact")
    assert recorded(out) == "exact"


@pytest.mark.parametrize(
    ("gpus", "refused"),
    [([8.0], True), ([0.0], False), ([8.0, 0.0], False), ([], False)],
)
def test_output_of_an_earlier_version_is_judged_by_its_devices(output, gpus, refused):
    out, edit = output
    edit(devices=[{"cpus": 8, "gpus": count} for count in gpus])
    if refused:
        with pytest.raises(ResumeError, match="precision fast"):
            record_precision(Store(out), "exact")
    else:
        record_precision(Store(out), "exact")
        assert recorded(out) == "exact"
