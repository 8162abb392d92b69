"""The arithmetic of pools."""

from __future__ import annotations

import pytest

from salip_ray.cluster.resources import Machine, cpus_needed, plan_pools, require_fit
from salip_ray.config import PoolsConfig
from salip_ray.errors import ResourceError

STAGES = ("propose", "retrieve", "refine")


@pytest.mark.parametrize(("cpus", "cores"), [(1, 1), (2, 2), (3, 2), (4, 4), (16, 16), (64, 64)])
def test_the_default_fits_every_machine(cpus, cores):
    machine = Machine(cpus=cpus, gpus=0, cores=cores)
    for config in (PoolsConfig(), PoolsConfig(fused=False)):
        pools = plan_pools(config, STAGES, machine)
        require_fit(pools, config.fetch_cpus, machine)
        assert pools["propose"].min_size == cores
        assert all(pool.gpus == 0 for pool in pools.values())
        assert all(pool.threads == 1 for pool in pools.values())


def test_stages_share_actors_where_nothing_speaks_against_it():
    without = Machine(cpus=8, gpus=0, cores=8)
    assert list(plan_pools(PoolsConfig(), STAGES, without)) == ["propose"]
    with_gpus = Machine(cpus=8, gpus=1, cores=8)
    assert list(plan_pools(PoolsConfig(), STAGES, with_gpus)) == list(STAGES)
    own = PoolsConfig.model_validate({"refine": {"size": 1}})
    assert list(plan_pools(own, STAGES, without)) == list(STAGES)
    assert list(plan_pools(PoolsConfig(fused=True), STAGES, with_gpus)) == ["propose"]
    assert plan_pools(PoolsConfig(fused=True), STAGES, with_gpus)["propose"].gpus == 1


def test_gpus_are_shared_evenly():
    machine = Machine(cpus=16, gpus=2, cores=16)
    pools = plan_pools(PoolsConfig(), STAGES, machine)
    assert [pool.min_size for pool in pools.values()] == [2, 2, 2]
    assert sum(pool.gpus for pool in pools.values()) == pytest.approx(0.99)
    require_fit(pools, 0.5, machine)
    assert plan_pools(PoolsConfig(), STAGES[:1], machine)["propose"].gpus == 1


def test_threads_do_not_follow_from_the_pools_of_a_machine_without_gpus():
    config = PoolsConfig.model_validate({"propose": {"size": 1}})
    pools = plan_pools(config, STAGES, Machine(cpus=8, gpus=0, cores=8))
    assert pools["propose"].threads == 1


def test_a_job_of_few_images_has_no_more_actors_than_images():
    machine = Machine(cpus=16, gpus=0, cores=16)
    assert plan_pools(PoolsConfig(), STAGES, machine, images=3)["propose"].min_size == 3
    assert plan_pools(PoolsConfig(), STAGES, machine, images=99)["propose"].min_size == 16
    separate = plan_pools(PoolsConfig(fused=False), STAGES, machine, images=1)
    assert [pool.max_size for pool in separate.values()] == [1, 1, 1]
    assert plan_pools(PoolsConfig(), STAGES, machine, images=0)["propose"].min_size == 1
    asked = PoolsConfig.model_validate({"propose": {"size": 5}, "retrieve": {"min_size": 4}})
    pools = plan_pools(asked, STAGES, machine, images=2)
    assert [pool.min_size for pool in pools.values()] == [5, 4, 2]


def test_threads_do_not_follow_from_the_number_of_images():
    machine = Machine(cpus=16, gpus=4, cores=16)
    few, many = (plan_pools(PoolsConfig(), STAGES, machine, images=n) for n in (1, 1000))
    assert [pool.min_size for pool in few.values()] == [1, 1, 1]
    assert few["propose"].threads == many["propose"].threads == 1
    assert few["propose"].gpus == many["propose"].gpus


def test_configured_values_are_used():
    config = PoolsConfig.model_validate(
        {
            "propose": {"min_size": 1, "max_size": 5, "cpus": 2, "gpus": 0.25, "threads": 3},
            "retrieve": {"size": 2},
            "refine": {"max_size": 4},
        }
    )
    pools = plan_pools(config, STAGES, Machine(cpus=100, gpus=1, cores=8))
    propose = pools["propose"]
    assert (propose.min_size, propose.max_size) == (1, 5)
    assert (propose.cpus, propose.gpus, propose.threads) == (2, 0.25, 3)
    assert (pools["retrieve"].min_size, pools["retrieve"].max_size) == (2, 2)
    assert (pools["refine"].min_size, pools["refine"].max_size) == (1, 4)
    assert pools["retrieve"].threads == 2  # 8 cores for 4 actors


def test_too_many_cpus_are_refused_with_the_sum():
    config = PoolsConfig.model_validate({"propose": {"size": 4, "cpus": 2}, "fused": False})
    machine = Machine(cpus=8, gpus=0, cores=8)
    pools = plan_pools(config, STAGES, machine)
    with pytest.raises(ResourceError, match=r"need 8\.72 CPUs \(propose 4 x 2 \+ .*but Ray has 8"):
        require_fit(pools, 0.5, machine)


def test_too_many_gpus_are_refused_with_the_sum():
    config = PoolsConfig.model_validate({"propose": {"gpus": 1}, "retrieve": {"gpus": 0.5}})
    machine = Machine(cpus=8, gpus=1, cores=8)
    with pytest.raises(ResourceError, match=r"GPUs \(propose 1 x 1 \+ retrieve 1 x 0\.5"):
        require_fit(plan_pools(config, STAGES, machine), 0.5, machine)


def test_the_sum_counts_fetch_and_re_cut_and_commit():
    pools = plan_pools(PoolsConfig(), ("propose",), Machine(cpus=10, gpus=0, cores=2))
    assert cpus_needed(pools, 0.25) == pytest.approx(2 + 0.25 + 0.1 + 0.1)


def test_an_actor_that_fits_no_single_node_is_refused():
    config = PoolsConfig.model_validate({"propose": {"size": 1, "cpus": 6}})
    machine = Machine(cpus=12, gpus=0, cores=4, nodes=((4.0, 0.0), (4.0, 0.0), (4.0, 0.0)))
    pools = plan_pools(config, STAGES, machine)
    with pytest.raises(ResourceError, match=r"one actor of propose needs 6 CPUs .*have 4 CPUs"):
        require_fit(pools, 0.5, machine)
    require_fit(pools, 0.5, Machine(cpus=12, gpus=0, cores=4, nodes=((8.0, 0.0), (4.0, 0.0))))


def test_actor_with_gpu_requests_half_a_cpu():
    pools = plan_pools(PoolsConfig(), STAGES, Machine(cpus=8, gpus=1, cores=8))
    assert {pool.cpus for pool in pools.values()} == {0.5}
    asked = PoolsConfig.model_validate({"propose": {"cpus": 2}})
    assert plan_pools(asked, STAGES, Machine(cpus=8, gpus=1, cores=8))["propose"].cpus == 2
