"""Build your own models once on a worker, before the actors of a job start.

An actor that fails while it starts ends a job with the traceback of its process, and Ray starts it
again first. A task that builds the same models answers with one line instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray.exceptions import RayError

from salip_ray.cluster.resources import Pool
from salip_ray.config import Config
from salip_ray.errors import ConfigError, ModelError
from salip_ray.models.registry import needed
from salip_ray.wording import one_line

_SHIP = (
    "Workers do not have the code of this process: send it along (ray job submit --working-dir, "
    "salip-ray submit --ship, or py_modules of a runtime environment), or install it in their image"
)


def require_models(config: Config, pools: Mapping[str, Pool]) -> None:
    """Check that workers can import and build the models that are not part of this package.

    Args:
        config: of the job.
        pools: the models of a stage without a pool are built where those of the first pool are.

    Raises:
        ModelError: a model cannot be built; the message names it.
    """
    own = [role for role, model in needed(config).items() if not model.built_in]
    first = next(iter(pools.values()), None)
    for role in own:
        pool = pools.get(role, first)
        assert pool is not None, "the proposer always has a pool"
        task = build_model.options(num_cpus=pool.cpus, num_gpus=pool.gpus)
        try:
            problem = ray.get(task.remote(config, role))
        except RayError as error:
            shown = needed(config)[role].shown
            raise ModelError(
                f"{shown} cannot be built: its worker died ({one_line(error, 300)})"
            ) from error
        if problem:
            raise ModelError(problem)


# A separate process, whose memory and GPU are free again before the actors start.
@ray.remote(max_calls=1, max_retries=0)
def build_model(config: Config, role: str) -> str:
    """Build the model of a role; return what is wrong, or an empty text."""
    from salip_ray.cascade import loading

    load = {
        "propose": loading.load_proposer,
        "retrieve": loading.load_retriever,
        "refine": loading.load_refiner,
    }
    try:
        load[role](config)
    except Exception as error:  # noqa: BLE001  (of anybody's code)
        # The driver has found it, so the code is only not here.
        missing = isinstance(error, ConfigError) and (
            "cannot be imported" in str(error) or "is not known" in str(error)
        )
        return f"{error}. {_SHIP}" if missing else str(error) or type(error).__name__
    return ""
