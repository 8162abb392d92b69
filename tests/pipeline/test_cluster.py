"""A job on a cluster whose nodes come and go: separate processes with logical CPUs and GPUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT, check_exactly_once, tree
from tests.ray_cluster import RayCluster

ROWS, ROWS_PER_SHARD = 400, 20
_HEARD_OF = 3  # seconds from a commit to when the driver has surely heard of it


@pytest.fixture(scope="module")
def cluster():
    with RayCluster(cpus=0) as cluster:
        yield cluster


def committed(output):
    return {path.name: path.stat().st_mtime_ns for path in output.glob("shards/*.parquet")}


def wait_for(what, process, log, seconds=300):
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)
    return result


def proposers(cluster):
    """Return the number of live actors of PROPOSE by node."""
    answer = json.loads(cluster.get(f"{cluster.address}/logical/actors"))
    return Counter(
        actor["address"]["nodeId"]
        for actor in answer["data"]["actors"].values()
        if actor["state"] == "ALIVE" and "Propose" in (actor.get("reprName") or actor["className"])
    )


def values(page, name):
    """Return the samples of a metric by stage."""
    samples = {}
    for line in page.splitlines():
        if match := re.match(rf"ray_{name}(?:_total)?{{(.*)}} (\S+)$", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(1)))
            samples[labels.get("stage")] = float(match.group(2))
    return samples


def test_a_job_waits_for_nodes_grows_with_them_and_outlives_one(cluster, tmp_path):
    output, log = tmp_path / "out", tmp_path / "job.log"
    settings = [
        *("pools.propose.gpus=0.5", "pools.retrieve.gpus=0.25", "pools.refine.gpus=0.25"),
        *(f"pools.{stage}.max_size=4" for stage in ("propose", "retrieve", "refine")),
        *("pools.wait.seconds=300", f"run.rows_per_shard={ROWS_PER_SHARD}"),
    ]
    command = [sys.executable, ROOT / "benchmarks" / "noop.py", "--rows", str(ROWS)]
    hold = tmp_path / "hold"  # lets the test decide what happens before what
    command += ["--sleep", "0.05", "--embedding", "2097152", "--out", output, "--hold", hold]
    command += [part for setting in settings for part in ("--set", setting)]
    with log.open("wb") as file:
        job = subprocess.Popen(
            command,
            env={**cluster.env, "RAY_ADDRESS": cluster.gcs_address},
            stdout=file,
            stderr=file,
        )
    try:
        wait_for(lambda: "waiting for nodes" in log.read_text(), job, log)
        assert "the pools need" in log.read_text()
        assert not committed(output)

        first = cluster.add_node(cpus=4, gpus=1)
        wait_for(lambda: len(committed(output)) >= 2, job, log)
        assert sum(proposers(cluster).values()) == 1  # a half, two quarters: the GPU is full
        # What an actor holds is told by itself, and later than what the monitor counts.
        memory = "salip_device_memory_bytes"
        wait_for(lambda: "propose" in values(cluster.metrics(), memory), job, log)
        page = cluster.metrics()
        assert values(page, "salip_images")["propose"] >= 2 * ROWS_PER_SHARD
        assert values(page, memory)["propose"] > 10e6
        assert set(values(page, "salip_queue_images")) == {"propose", "retrieve", "refine"}
        assert "salip_shards_committed" in page

        wait_for(lambda: len(committed(output)) >= 4, job, log)
        hold.touch()
        cluster.add_node(cpus=6, gpus=2)
        wait_for(lambda: len(proposers(cluster)) == 2, job, log)
        before = len(committed(output))
        hold.unlink()
        wait_for(lambda: len(committed(output)) > before, job, log)

        shards, contents, now = committed(output), tree(output), time.time_ns()
        cluster.lose(first)
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    finally:
        if job.poll() is None:
            job.kill()
    check_exactly_once(output, ROWS)
    after = committed(output)
    # What the driver knew to be committed stays; a commit it had not heard of is made again, alike.
    settled = {name: then for name, then in shards.items() if then < now - _HEARD_OF * 1e9}
    assert len(settled) >= 4
    assert {name: after[name] for name in settled} == settled
    assert contents.items() <= tree(output).items()
    assert len(after) == ROWS // ROWS_PER_SHARD


ACTORS = """
import ray
ray.init(log_to_driver=False)

@ray.remote(num_cpus=0.5, resources={"cold": 1})
class Actor:
    def load(self, uri):
        from salip_ray.models.weights import fetch
        return fetch(uri).read_bytes()

actors = [Actor.remote() for _ in range(4)]
contents = ray.get([actor.load.remote({uri!r}) for actor in actors])
assert len(set(contents)) == 1 and len(contents[0]) == 1_000_000
"""


def test_four_actors_of_a_cold_node_fetch_weights_once(cluster, tmp_path):
    requests = []

    class Bucket(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(b"")

        def do_GET(self):
            requests.append(self.path)
            self.answer(bytes(1_000_000))

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        cluster.env["SALIP_RAY_CACHE"] = os.fspath(tmp_path / "cache")  # of nodes started from here
        cluster.add_node(cpus=2, resources={"cold": 4})
        script = ACTORS.replace("{uri!r}", repr(f"http://127.0.0.1:{server.server_port}/sam.bin"))
        cluster.env["RAY_ADDRESS"] = cluster.gcs_address
        done = cluster.run(sys.executable, "-c", script)
        assert done.returncode == 0, done.stderr
    finally:
        server.shutdown()
        server.server_close()
    assert requests == ["/sam.bin"]
