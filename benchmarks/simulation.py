"""A discrete simulation of a job in its steady state: blocks of images go round the parts of it.

    driver -> store -> driver -> fetch cores -> driver -> GPUs -> driver -> commit cores -> done

Every part is a queue with so many servers. The driver is one server that each task costs a little;
the store is one server as fast as its request limit; a GPU does PROPOSE, RETRIEVE and REFINE of a
block in turn. As many blocks are under way as Ray Data's back-pressure lets in. Times vary as a
log-normal does. A lost node costs its block, which is done again, and is away for a while.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_STEPS = ("driver", "store", "driver", "fetch", "driver", "gpu", "driver", "commit")
_SPREAD = 0.3  # of a service time's logarithm


@dataclass(frozen=True)
class Setting:
    """What a job's parts cost.

    Attributes:
        gpu_seconds: of one image on one GPU, all three stages.
        fetch_seconds: of one image on one core, download and decode.
        commit_seconds: of one image's share of a commit on one core.
        task_seconds: of the driver's time for one task.
        block_rows: images of a block.
        cores_per_gpu: cores that fetch and commit for a GPU.
        requests_per_second: what the store answers, over all prefixes of the input.
        losses_per_hour: of each node, as spot markets do.
        away_seconds: until a lost node's replacement works.
        label: in the plot.
    """

    gpu_seconds: float
    fetch_seconds: float
    commit_seconds: float
    task_seconds: float
    block_rows: int
    cores_per_gpu: int
    requests_per_second: float
    losses_per_hour: float
    away_seconds: float
    label: str = ""


class _Part:
    """A queue with servers; counts how busy they are."""

    def __init__(self, servers: int, seconds: float) -> None:
        self.servers = self.free = servers
        self.seconds = seconds
        self.waiting: deque[int] = deque()
        self.busy = 0.0


def simulate(setting: Setting, gpus: int, *, blocks: int, seed: int = 1) -> dict[str, Any]:
    """Send ``blocks`` blocks through a cluster and look at its steady state.

    The blocks that first fill the cluster, twice over, only warm it up; when the last one has come
    in, the parts begin to run dry, and that is the end. So there must be many more blocks than are
    under way at once, which is twice the number of GPUs and cores.

    Returns:
        ``gpus``, ``images_per_second``, ``busy`` (share by part) and ``redone`` (share of blocks).
    """
    rng = random.Random(seed)
    rows, cores = setting.block_rows, max(1, gpus * setting.cores_per_gpu)
    parts = {
        "driver": _Part(1, setting.task_seconds),
        "store": _Part(1, rows / setting.requests_per_second),
        "fetch": _Part(cores, rows * setting.fetch_seconds),
        "gpu": _Part(gpus, rows * setting.gpu_seconds),
        "commit": _Part(cores, rows * setting.commit_seconds),
    }
    events: list[tuple[float, int, int, str, bool]] = []  # when, tie, block, part, lost
    step_of = {}  # a block's step
    now, tie, done, redone = 0.0, 0, 0, 0
    under_way = min(blocks, 2 * (gpus + cores))
    warm, warm_at, warm_busy = 2 * under_way, 0.0, {}
    if blocks < 6 * under_way:
        raise ValueError(f"{blocks} blocks are too few for {under_way} under way")

    def begin(part: _Part, name: str) -> None:
        nonlocal tie
        while part.free and part.waiting:
            block = part.waiting.popleft()
            seconds = part.seconds * rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)
            chance = 1 - math.exp(-seconds * setting.losses_per_hour / 3600)
            lost = name == "gpu" and rng.random() < chance
            part.free -= 1
            part.busy += seconds
            tie += 1
            heapq.heappush(
                events, (now + seconds + setting.away_seconds * lost, tie, block, name, lost)
            )

    def enter(block: int) -> None:
        name = _STEPS[step_of[block]]
        parts[name].waiting.append(block)
        begin(parts[name], name)

    for block in range(under_way):
        step_of[block] = 0
        enter(block)
    fresh = len(step_of)
    while fresh < blocks:
        now, _, block, name, lost = heapq.heappop(events)
        parts[name].free += 1
        if lost:
            redone += 1
        else:
            step_of[block] += 1
        if step_of[block] == len(_STEPS):
            del step_of[block]
            done += 1
            if done == warm:
                warm_at, warm_busy = now, {key: part.busy for key, part in parts.items()}
            step_of[fresh] = 0
            enter(fresh)
            fresh += 1
        else:
            enter(block)
        begin(parts[name], name)
    seconds = now - warm_at
    return {
        "gpus": gpus,
        "images_per_second": round((done - warm) * rows / seconds, 2),
        "busy": {
            key: round(min(1.0, (part.busy - warm_busy[key]) / (part.servers * seconds)), 4)
            for key, part in parts.items()
        },
        "redone": round(redone / max(1, done), 5),
    }


def sweep(setting: Setting) -> list[dict[str, Any]]:
    """Return the simulation for each number of GPUs."""
    return [simulate(setting, gpus, blocks=3000 + 80 * gpus) for gpus in GPUS]
