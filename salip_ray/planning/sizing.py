"""Size the pools of a job from the cost of an image, and predict what the job will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from salip_ray.config import Config
from salip_ray.errors import ConfigError
from salip_ray.planning.profile import Profile

_RAY_SHARE = 0.05  # of the throughput, lost to Ray
_BLOCK_BYTES = 32 * 1024**2
_BLOCKS_PER_ACTOR = 4  # in the object store: being read, waiting, being written


@dataclass(frozen=True)
class Sizing:
    """The pools of a job, and its expected cost.

    Attributes:
        pools: the ``pools`` section of a configuration.
        images_per_second: in the steady state.
        hours: for all images, without start-up.
        gpu_hours: GPUs times hours.
        cost: price of the hours, or None if no price is given.
        output_bytes: size of the output.
        store_bytes: size of the object store while the job runs.
        fetch_cores: cores that fetching and decoding keep busy.
        shares: share of each stage in the work.
    """

    pools: dict[str, Any]
    images_per_second: float
    hours: float
    gpu_hours: float
    cost: float | None
    output_bytes: float
    store_bytes: float
    fetch_cores: float
    shares: dict[str, float]


def size(
    profile: Profile,
    *,
    images: int,
    gpus: int = 0,
    cores: int | None = None,
    price: float | None = None,
) -> Sizing:
    """Size the pools of a job.

    Without GPUs, each core has an actor that runs all stages, so that an image takes the sum of
    their seconds. With GPUs, each device has one actor of each stage. They take turns, and each has
    the share of the device that its stage has in the seconds of all stages.

    Args:
        profile: measured on a machine like those of the job.
        images: number of images of the job.
        gpus: number of GPUs of the cluster; if there are any, the profile must be of a GPU.
        cores: number of cores of a cluster without GPUs; by default that of this machine.
        price: price of a GPU hour (without GPUs, of a core hour), in any currency.

    Raises:
        ConfigError: there are GPUs, but the profile is of a CPU.
    """
    if gpus and profile.device != "cuda":
        raise ConfigError(
            f"--gpus {gpus} needs a profile of a GPU, found one of a {profile.device}: run plan "
            "where the GPUs are, or give the --profile that was saved there"
        )
    cores = cores or profile.cores
    models = {
        name: spent for name, spent in profile.seconds.items() if name not in {"fetch", "commit"}
    }
    work = sum(models.values()) if gpus else sum(profile.seconds.values())
    rate = (gpus or cores) / work * (1 - _RAY_SHARE)
    pools: dict[str, Any] = {"propose": {"size": cores, "threads": 1}}
    if gpus:
        shares = {name: math.floor(100 * spent / work) / 100 for name, spent in models.items()}
        pools = {name: {"size": gpus, "gpus": max(0.01, share)} for name, share in shares.items()}
    actors = sum(pool["size"] for pool in pools.values())
    hours = images / rate / 3600
    return Sizing(
        pools=pools,
        images_per_second=rate,
        hours=hours,
        gpu_hours=gpus * hours,
        cost=None if price is None else price * (gpus or cores) * hours,
        output_bytes=profile.output_bytes * images,
        store_bytes=actors * _BLOCKS_PER_ACTOR * max(profile.row_bytes, _BLOCK_BYTES),
        fetch_cores=rate * (profile.seconds["fetch"] + profile.seconds.get("commit", 0.0)),
        shares={name: spent / work for name, spent in profile.seconds.items()},
    )


def sized_config(config: Config, sizing: Sizing) -> dict[str, Any]:
    """Return the configuration with those pools, as data for a task file of ``label``.

    Storage options can be secrets and are left out: give them to ``label`` again.
    """
    data = config.model_dump(mode="json", exclude={"storage"}, exclude_none=True)
    unchanged = {"fetch_cpus", "wait"}
    data["pools"] = {**{k: v for k, v in data["pools"].items() if k in unchanged}, **sizing.pools}
    return data
