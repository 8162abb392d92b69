"""What salip_ray assumes about Ray beyond its public API: a new Ray that differs fails here."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from salip_ray.cluster import ray_private
from salip_ray.cluster.resources import RECUT_CPUS


def test_the_message_of_a_start_that_takes_too_long():
    from ray._private import node

    assert ray_private._START_TIMEOUT in inspect.getsource(node)
    assert ray_private.is_start_timeout(Exception("The current node timed out during startup. X"))
    assert not ray_private.is_start_timeout(RuntimeError("no space left"))


LISTENING = """
import json, ray
import psutil  # from Ray
from salip_ray.cluster.resources import Machine
from salip_ray.cluster.session import ray_session

@ray.remote
def one():
    return 1

with ray_session(lambda machine: 1):
    assert ray.get(one.remote()) == 1
    me = psutil.Process()
    print(json.dumps(sorted({
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    })))
"""


def test_a_local_ray_listens_on_loopback_only():
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.usefixtures("local_ray")
def test_a_repartition_takes_other_cpus():
    import ray
    from ray.data._internal.logical.optimizers import get_execution_plan

    blocks = ray.data.range(4).repartition(target_num_rows_per_block=2, strict=True)
    ray_private.set_cpus_of_last_operator(blocks, RECUT_CPUS)
    plan = get_execution_plan(blocks._logical_plan)
    plan = plan[0] if isinstance(plan, tuple) else plan
    assert plan.dag._ray_remote_args["num_cpus"] == RECUT_CPUS


@pytest.mark.usefixtures("local_ray")
def test_workers_that_died_are_listed():
    import ray

    @ray.remote(max_retries=0)
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    before = ray_private.lost_workers()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(die.remote())
    deadline = time.monotonic() + 120
    while len(lost := ray_private.lost_workers()) == len(before) and time.monotonic() < deadline:
        time.sleep(0.1)
    (worker,) = (worker for key, worker in lost.items() if key not in before)
    assert not worker.out_of_memory
    assert worker.detail


def same_row(row):
    return row


class Same:
    def __call__(self, batch):
        return batch


@pytest.mark.usefixtures("local_ray")
def test_cpus_of_the_operators_of_a_dataset(tmp_path):
    import ray
    from ray.data import ActorPoolStrategy

    count = ray_private.cpus_of_operators
    items = ray.data.from_items([{"a": 1}])
    assert count(items) == 0
    assert count(ray.data.from_arrow(pa.table({"a": [1]}))) == 0
    assert count(items.map(same_row)) == 1
    assert count(items.map(same_row, num_cpus=3).map(same_row)) == 3
    assert count(items.map(same_row).materialize()) == 0
    assert count(ray.data.range(4)) == 1
    actors = ActorPoolStrategy(min_size=2, max_size=4)
    assert count(ray.data.range(4).map_batches(Same, compute=actors, num_cpus=0.5)) == 2


@pytest.mark.usefixtures("local_ray")
def test_the_advice_on_retries_is_cut_from_the_message_of_a_failed_task():
    import ray

    def fail(row):
        raise ValueError("no luck")

    with pytest.raises(ray.exceptions.RayTaskError, match="no luck") as caught:
        ray.data.from_items([{"a": 1}]).map(fail).materialize()
    messages = []
    problem = caught.value
    while problem is not None:
        messages.append(str(problem))
        problem = getattr(problem, "cause", None) or problem.__cause__
    assert any(ray_private._RETRY_ADVICE in message for message in messages)
    for message in messages:
        assert ray_private._RETRY_ADVICE not in ray_private.without_retry_advice(message)
