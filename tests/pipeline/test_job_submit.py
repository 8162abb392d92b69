"""Jobs submitted to a real head with its job server: Ray's own command, and ours."""

from __future__ import annotations

import signal
import subprocess
import time

import cv2
import pyarrow.parquet as pq
import pytest

from salip_ray.models.bundled.phantoms import make_phantom
from tests.conftest import BIN, ROOT, SMALL, check_exactly_once
from tests.ray_cluster import RayCluster


@pytest.fixture(scope="module")
def cluster():
    with RayCluster(cpus=4) as cluster:
        yield cluster


def ray_job_submit(cluster, *arguments):
    return cluster.run(
        *(BIN / "ray", "job", "submit", "--address", cluster.address, "--working-dir", "."),
        *("--", "python", "jobs/label.py", *arguments, "--config", "lungs"),
        *(part for setting in SMALL for part in ("--set", setting)),
        cwd=ROOT,
    )


def test_the_job_succeeds_and_writes_every_row(cluster, images, tmp_path):
    done = ray_job_submit(cluster, images, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    check_exactly_once(tmp_path / "out", 11)
    statuses = pq.read_table(tmp_path / "out" / "shards")["status"].to_pylist()
    assert statuses.count("error") == 2
    assert len(statuses) == 11


def test_a_failing_job_is_failed_and_the_command_says_so(cluster, tmp_path):
    done = ray_job_submit(cluster, tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode != 0
    listed = cluster.run(BIN / "ray", "job", "list", "--address", cluster.address)
    assert "FAILED" in listed.stdout + listed.stderr
    assert "nowhere does not exist" in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def arguments(cluster, images, output):
    return [
        *("submit", str(images), str(output), "--config", "lungs", "--address", cluster.address),
        *(part for setting in SMALL for part in ("--set", setting)),
    ]


def started(cluster, *command, log):
    """Start the command in a process, and return it with the id of its job."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [BIN / "salip-ray", *command], env=cluster.env, stdout=file, stderr=file
        )
    return process, wait_for(lambda: find_job(log.read_text()), process)


def find_job(log):
    line = next((line for line in log.splitlines() if "; stop it:" in line), None)
    return line and line.partition(";")[0].split()[-1]


def wait_for(what, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert process.poll() is None, "the command ended"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)
    return result


@pytest.fixture
def many(tmp_path):
    """Sixty small images: enough that a job is under way when it is stopped."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(60):
        image = make_phantom("chest_xray", index, bank="tune", size=64).image
        cv2.imwrite(str(folder / f"{index:02d}.png"), image[:, :, ::-1])
    return folder


@pytest.mark.cluster  # two jobs, one of them twice
def test_submit_detaches_joins_stops_and_resumes(cluster, many, tmp_path):
    output = tmp_path / "out"
    command = arguments(cluster, many, output)
    first, job = started(cluster, *command, log=tmp_path / "first.log")
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130
    assert "is still running" in (tmp_path / "first.log").read_text()

    second, joined = started(cluster, *command, log=tmp_path / "second.log")
    assert joined == job
    assert "joined running job" in (tmp_path / "second.log").read_text()
    other = cluster.run(BIN / "salip-ray", *command, "--set", "task.max_area=0.3")
    assert other.returncode == 2
    assert f"job {job} is writing to {output}" in other.stderr

    wait_for(lambda: list(output.glob("shards/*.parquet")), second)
    stopped = cluster.run(BIN / "salip-ray", "stop", job, "--address", cluster.address)
    assert f"job {job} is stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert second.wait(timeout=60) == 1
    committed = {path: path.stat().st_mtime_ns for path in output.glob("shards/*.parquet")}
    assert 1 <= len(committed) < 15
    assert not list(output.rglob("*.tmp"))

    third = cluster.run(BIN / "salip-ray", *command)
    assert third.returncode == 0, third.stdout + third.stderr
    assert f"resuming: {len(committed)} of 15 shards already committed" in third.stdout
    assert "shards committed" in third.stdout
    check_exactly_once(output, 60)
    assert {path: path.stat().st_mtime_ns for path in committed} == committed


def test_the_exit_code_of_the_job_comes_back(cluster, tmp_path):
    done = cluster.run(BIN / "salip-ray", *arguments(cluster, tmp_path / "nowhere", tmp_path / "o"))
    assert done.returncode == 2
    assert "nowhere does not exist" in done.stdout


def test_a_wrong_token_is_one_line(cluster, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    done = subprocess.run(
        [BIN / "salip-ray", *arguments(cluster, tmp_path, tmp_path / "o")],
        env={**cluster.env, "RAY_AUTH_TOKEN_PATH": str(wrong)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("salip-ray: no job server answers")
