"""What travels with a submitted job, and how its log is followed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from salip_ray import load_config
from salip_ray.cli import app
from salip_ray.cluster import submit as jobs
from salip_ray.errors import ClusterError


@pytest.mark.parametrize("preset", ["bundled", "paper-2d"])
def test_the_file_that_travels_is_the_configuration(preset, tmp_path):
    weights = ["sam.checkpoint=s3://weights/sam.pth"] if preset != "bundled" else []
    config = load_config(
        "lungs",
        preset=preset,
        overrides=[
            *weights,
            "pools.propose.size=3",
            "storage.output.endpoint_url=https://s3.example.org",
        ],
    )
    (tmp_path / "job.yaml").write_text(jobs.config_file(config))
    again = load_config(tmp_path / "job.yaml")
    assert again == config
    assert again.recipe() == config.recipe()
    # Left open here, so left open there: the cluster decides.
    assert "cpus" not in again.pools.propose.model_fields_set
    assert again.storage.output == {"endpoint_url": "https://s3.example.org"}


class Server:
    """A job server in memory: log parts by connection, then how the job ended."""

    def __init__(self, *connections, status=JobStatus.SUCCEEDED, code=None, jobs=()):
        self.connections = list(connections)
        self.status, self.code, self.jobs = status, code, list(jobs)
        self.submitted = []

    async def tail_job_logs(self, job_id):
        for part in self.connections.pop(0):
            if isinstance(part, Exception):
                raise part
            yield part

    def get_job_info(self, job_id):
        status = JobStatus.RUNNING if self.connections else self.status
        return SimpleNamespace(status=status, driver_exit_code=self.code)

    def get_job_logs(self, job_id):
        return "one\ntwo\nthree\n"

    def list_jobs(self):
        return self.jobs

    def submit_job(self, **job):
        self.submitted.append(job)
        return "raysubmit_1"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0)


def test_a_lost_connection_repeats_and_loses_nothing():
    server = Server(["one\nt", RuntimeError("gone")], ["one\n", "two\nth", "ree\n"])
    message = []
    assert jobs.follow(server, "j", message.append) == 0
    assert "".join(message) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("FAILED", 2, 2), ("FAILED", None, 1), ("FAILED", -9, 1), ("STOPPED", None, 1)],
)
def test_unsuccessful_job_has_nonzero_exit_code(status, code, expected):
    server = Server([], status=JobStatus(status), code=code)
    assert jobs.follow(server, "j", lambda text: None) == expected


@pytest.mark.parametrize(
    "location", ["https://h/list.csv?X-Amz-Signature=hush", "https://me:hush@h/list.csv"]
)
def test_a_location_that_holds_a_secret_is_not_put_on_the_command_line(location):
    server = Server()
    for locations in ((location, "s3://b/out"), ("s3://b/in", location)):
        with pytest.raises(ClusterError, match="signature or a password") as refused:
            jobs.submit(server, *locations, load_config("lungs"))
        assert "hush" not in str(refused.value)
    assert server.submitted == []


def test_secrets_are_in_the_file_and_not_on_the_command_line():
    config = load_config("lungs", overrides=["storage.output.secret=hush"])
    server = Server()
    jobs.submit(server, "s3://b/in", "s3://b/out?x", config, python="/opt/my python")
    (job,) = server.submitted
    assert job["entrypoint"].startswith("'/opt/my python' -m salip_ray label s3://b/in 's3://b/out")
    assert "hush" not in job["entrypoint"] + str(job["metadata"])
    assert "py_modules" not in job["runtime_env"]


def test_label_on_the_cluster_gets_every_option_of_submit(monkeypatch):
    server, received = Server([]), []
    monkeypatch.setattr(jobs, "connect", lambda address: server)
    options = ["--include", "a b/*.png", "--include", "-x*", "--exclude", "*_mask.png", "--quiet"]
    options += ["--limit", "7", "--extend", "--manifest", "s3://b/names.parquet"]
    options += ["--candidates", "s3://b/masks"]
    given = ["submit", "s3://b/in", "s3://b/out", "--config", "lungs", *options]
    done = CliRunner().invoke(app, [*given, "--address", "http://head:8265"])
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    words = shlex.split(job["entrypoint"])[3:]
    words[words.index("job.yaml")] = "lungs"  # the file is on the cluster
    monkeypatch.setattr("salip_ray.pipeline.label", lambda *args, **more: received.append(more))
    assert CliRunner().invoke(app, words).exit_code == 0
    (arguments,) = received
    assert arguments == {
        "references": None,
        "prompts": None,
        "candidates": "s3://b/masks",
        "manifest": "s3://b/names.parquet",
        "quiet": True,
        "extend": True,
        "include": ["a b/*.png", "-x*"],
        "exclude": ["*_mask.png"],
        "limit": 7,
    }


def test_a_reproduction_is_submitted_with_its_sentences_as_a_file(monkeypatch, tmp_path):
    prompts = tmp_path / "lungs.json"
    prompts.write_text('{"lungs": ["a sentence that the dashboard does not show"]}')
    server = Server([])
    sent = {}

    def submit_job(**job):
        folder = Path(job["runtime_env"]["working_dir"])
        sent.update({path.name: path.read_text() for path in folder.iterdir()})
        return Server.submit_job(server, **job)

    server.submit_job = submit_job
    monkeypatch.setattr(jobs, "connect", lambda address: server)
    given = ["reproduce", "lungs", "/shared/cxr", "--weights", "/shared/weights", "--limit", "20"]
    given += ["--prompts", str(prompts), "--output", "/shared/out", "--set", "pools.fused=true"]
    done = CliRunner().invoke(app, [*given, "--address", "http://head:8265"])
    assert done.exit_code == 0, done.output
    (job,) = server.submitted
    assert sent == {"prompts.json": prompts.read_text()}
    assert job["entrypoint"] == (
        "python -m salip_ray reproduce lungs /shared/cxr --output /shared/out "
        "--prompts prompts.json --seed 0 --limit 20 --weights /shared/weights "
        "--set pools.fused=true"
    )


def test_one_output_has_one_writer():
    config = load_config("lungs")
    server = Server()
    jobs.submit(server, "s3://b/in", "s3://b/out", config)
    (job,) = server.submitted
    running = SimpleNamespace(
        submission_id="raysubmit_1", status=JobStatus.RUNNING, metadata=job["metadata"]
    )
    busy = Server(jobs=[running])
    assert jobs.submit(busy, "s3://b/in", "s3://b/out", config).joined
    assert not busy.submitted
    with pytest.raises(ClusterError, match="raysubmit_1 is writing to s3://b/out"):
        jobs.submit(busy, "s3://b/other", "s3://b/out", config)
    running.status = JobStatus.SUCCEEDED
    assert not jobs.submit(busy, "s3://b/in", "s3://b/out", config).joined


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(ClusterError, match="as in http://head:8265"):
        jobs.connect("ray://head:10001")


def test_a_shipped_package_finds_its_tasks_and_presets(tmp_path):
    package = jobs.package_to_ship(tmp_path)
    script = "from salip_ray import load_config; print(load_config('lungs').task.name)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "lungs\n", done.stderr
