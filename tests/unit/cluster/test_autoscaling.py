"""Wait for nodes until the pools fit, and no longer."""

from __future__ import annotations

import pytest

from salip_ray.cluster import autoscaling
from salip_ray.cluster.resources import Machine, plan_pools
from salip_ray.config import PoolsConfig
from salip_ray.errors import ResourceError

STAGES = ("propose", "retrieve", "refine")
GPU_POOLS = {
    "propose": {"min_size": 1, "max_size": 4, "gpus": 0.7},
    "retrieve": {"min_size": 1, "max_size": 4, "gpus": 0.2},
    "refine": {"min_size": 1, "max_size": 4, "gpus": 0.1},
}
HEAD_ALONE = Machine(cpus=0, gpus=0, cores=4, nodes=((0, 0),))
WITH_WORKER = Machine(cpus=4, gpus=1, cores=4, nodes=((0, 0), (4, 1)))


@pytest.fixture(autouse=True)
def requested(monkeypatch):
    """Requests to the autoscaler; waiting takes no time."""
    requests = []
    monkeypatch.setattr(autoscaling, "_request", requests.append)
    monkeypatch.setattr(autoscaling.time, "sleep", lambda seconds: None)
    return requests


def test_pools_that_fit_need_no_wait(requested):
    reported = []
    config = PoolsConfig()
    assert (
        autoscaling.wait_for_pools(config, STAGES, WITH_WORKER, reported.append)[0] is WITH_WORKER
    )
    assert not reported
    assert not requested


def test_without_a_wait_a_misfit_is_refused_with_the_arithmetic(requested):
    config = PoolsConfig.model_validate(GPU_POOLS)
    with pytest.raises(ResourceError, match=r"need 0\.73 CPUs .*but Ray has 0"):
        autoscaling.wait_for_pools(config, STAGES, HEAD_ALONE, print)
    assert not requested


def test_missing_nodes_are_requested_once(requested):
    config = PoolsConfig.model_validate({**GPU_POOLS, "wait": {"seconds": 600}})
    views = [HEAD_ALONE, HEAD_ALONE, WITH_WORKER]
    reported = []
    machine, pools = autoscaling.wait_for_pools(
        config, STAGES, HEAD_ALONE, reported.append, look=lambda: views.pop(0)
    )
    assert machine is WITH_WORKER
    assert pools["propose"].gpus == 0.7
    assert len(reported) == 1
    assert "Ray has 0" in reported[0]
    wanted, cleared = requested
    assert sum(bundle.get("GPU", 0) for bundle in wanted) == pytest.approx(1)
    assert cleared == []


def test_named_nodes_and_gpus_are_awaited_although_the_pools_fit():
    config = PoolsConfig.model_validate(
        {**GPU_POOLS, "wait": {"seconds": 600, "nodes": 3, "gpus": 2}}
    )
    larger = Machine(cpus=8, gpus=2, cores=4, nodes=((0, 0), (4, 1), (4, 1)))
    views = [WITH_WORKER, larger]
    machine, _ = autoscaling.wait_for_pools(
        config, STAGES, WITH_WORKER, print, look=lambda: views.pop(0)
    )
    assert machine is larger


def test_a_wait_that_ends_is_refused_with_what_is_missing(monkeypatch, requested):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(autoscaling.time, "monotonic", lambda: next(clock))
    config = PoolsConfig.model_validate({"wait": {"seconds": 20, "gpus": 1}})
    alone = Machine(cpus=8, gpus=0, cores=8, nodes=((8, 0),))
    with pytest.raises(ResourceError, match=r"pools\.wait\.gpus is 1, but Ray has 0 after 20 s"):
        autoscaling.wait_for_pools(config, STAGES, alone, print, look=lambda: alone)
    assert requested[-1] == []


def test_a_request_covers_the_configured_size():
    config = PoolsConfig.model_validate({**GPU_POOLS, "wait": {"gpus": 4, "cpus": 16}})
    wanted = autoscaling.bundles(plan_pools(config, STAGES, WITH_WORKER), config)
    assert sum(bundle.get("GPU", 0) for bundle in wanted) == pytest.approx(4)
    assert sum(bundle.get("CPU", 0) for bundle in wanted) >= 15.5
