"""From what an image costs to the pools of a job, and to what the job will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from salip_ray.cluster.profile import Profile
from salip_ray.config import Config
from salip_ray.errors import ConfigError

_RAY_SHARE = 0.05  # of the throughput, that the same stages without Ray would have more
_BLOCK_BYTES = 32 * 1024**2
_BLOCKS_OF_ACTOR = 4  # in the object store for each: being read, waiting, being written


@dataclass(frozen=True)
class Sizing:
    """A job's pools and what is expected of it.

    Attributes:
        pools: the ``pools`` section of a configuration.
        images_per_second: in the steady state.
        hours: for all images, start-up aside.
        gpu_hours: GPUs times hours.
        cost: of those, None where no price is given.
        output_bytes: written in all.
        store_bytes: of the object store, while the job runs.
        fetch_cores: cores that fetching and decoding keep busy.
        shares: share of the work of each stage.
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

    Without GPUs every core has an actor that does all stages, so an image takes the sum of their
    seconds of a core. With GPUs every device has an actor of each stage, which take turns on it,
    each with the share of the device that its seconds are of theirs.

    Args:
        profile: measured on such a machine as the job will run on.
        images: of the job.
        gpus: of the cluster; the profile must then be a GPU's.
        cores: of the cluster without GPUs; this machine's by default.
        price: of a GPU hour (of a core hour without GPUs), in any currency.

    Raises:
        ConfigError: GPUs are planned with a profile of a CPU.
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
        store_bytes=actors * _BLOCKS_OF_ACTOR * max(profile.row_bytes, _BLOCK_BYTES),
        fetch_cores=rate * (profile.seconds["fetch"] + profile.seconds.get("commit", 0.0)),
        shares={name: spent / work for name, spent in profile.seconds.items()},
    )


def sized_config(config: Config, sizing: Sizing) -> dict[str, Any]:
    """The configuration with those pools, as data for a YAML file that ``label`` takes.

    Storage options, which may be secrets, are left out: give them to ``label`` again.
    """
    data = config.model_dump(mode="json", exclude={"storage"}, exclude_none=True)
    kept = {"fetch_cpus", "wait"}
    data["pools"] = {**{k: v for k, v in data["pools"].items() if k in kept}, **sizing.pools}
    return data
