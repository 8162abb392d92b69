"""Waiting for nodes: until the pools fit, and no longer."""

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
def asked(monkeypatch):
    """What the autoscaler was asked for; and the waiting itself takes no time."""
    requests = []
    monkeypatch.setattr(autoscaling, "_ask", requests.append)
    monkeypatch.setattr(autoscaling.time, "sleep", lambda seconds: None)
    return requests


def test_what_fits_is_not_waited_for(asked):
    said = []
    config = PoolsConfig()
    assert autoscaling.wait_for_nodes(config, STAGES, WITH_WORKER, said.append) is WITH_WORKER
    assert not said
    assert not asked


def test_without_waiting_it_is_refused_at_once_with_the_sum(asked):
    config = PoolsConfig.model_validate(GPU_POOLS)
    with pytest.raises(ResourceError, match=r"need 0\.73 CPUs .*but Ray has 0"):
        autoscaling.wait_for_nodes(config, STAGES, HEAD_ALONE, print)
    assert not asked


def test_nodes_that_come_are_awaited_and_asked_for_once(asked):
    config = PoolsConfig.model_validate({**GPU_POOLS, "wait": {"seconds": 600}})
    views = [HEAD_ALONE, HEAD_ALONE, WITH_WORKER]
    said = []
    found = autoscaling.wait_for_nodes(
        config, STAGES, HEAD_ALONE, said.append, look=lambda: views.pop(0)
    )
    assert found is WITH_WORKER
    assert len(said) == 1
    assert "Ray has 0" in said[0]
    wanted, cleared = asked
    assert sum(bundle.get("GPU", 0) for bundle in wanted) == pytest.approx(1)
    assert cleared == []


def test_named_nodes_and_gpus_are_awaited_though_the_pools_fit():
    config = PoolsConfig.model_validate(
        {**GPU_POOLS, "wait": {"seconds": 600, "nodes": 3, "gpus": 2}}
    )
    larger = Machine(cpus=8, gpus=2, cores=4, nodes=((0, 0), (4, 1), (4, 1)))
    views = [WITH_WORKER, larger]
    found = autoscaling.wait_for_nodes(
        config, STAGES, WITH_WORKER, print, look=lambda: views.pop(0)
    )
    assert found is larger


def test_the_time_is_over(monkeypatch, asked):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(autoscaling.time, "monotonic", lambda: next(clock))
    config = PoolsConfig.model_validate({"wait": {"seconds": 20, "gpus": 1}})
    alone = Machine(cpus=8, gpus=0, cores=8, nodes=((8, 0),))
    with pytest.raises(ResourceError, match=r"pools\.wait\.gpus is 1, but Ray has 0 after 20 s"):
        autoscaling.wait_for_nodes(config, STAGES, alone, print, look=lambda: alone)
    assert asked[-1] == []


def test_what_is_asked_for_covers_the_configured_size():
    config = PoolsConfig.model_validate({**GPU_POOLS, "wait": {"gpus": 4, "cpus": 16}})
    wanted = autoscaling.bundles(plan_pools(config, STAGES, WITH_WORKER), config)
    assert sum(bundle.get("GPU", 0) for bundle in wanted) == pytest.approx(4)
    assert sum(bundle.get("CPU", 0) for bundle in wanted) >= 15.5
