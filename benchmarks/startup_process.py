"""A job of one image, or a cascade, in a new process: prints the seconds of each step as JSON.

Arguments: ``job IMAGE OUTPUT`` or ``cascade IMAGE``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STEPS: dict[str, float] = {}


@contextmanager
def step(name: str) -> Iterator[None]:
    """Record the seconds of a block."""
    began = time.perf_counter()
    yield
    _STEPS[name] = time.perf_counter() - began


def job(image: str, output: str) -> None:
    """Label one image as ``salip-ray label`` does."""
    with step("import the command"):
        from salip_ray.cli.label import make_config
    with step("read the configuration"):
        config = make_config("lungs")
    with step("import the job"):
        from salip_ray import pipeline
        from salip_ray.pipeline import run

        pipeline.label  # noqa: B018  (imported on first use)
    session, dataflow = run.ray_session, run.label_and_commit

    @contextmanager
    def timed_session(cpus_for: object) -> Iterator[object]:
        with session(cpus_for) as machine:
            _STEPS["Ray starts"] = time.perf_counter() - began
            yield machine
            inside = time.perf_counter()
        _STEPS["Ray stops"] = time.perf_counter() - inside

    def timed_dataflow(*values: object) -> None:
        with step("actors load models and label"):
            dataflow(*values)

    run.ray_session, run.label_and_commit = timed_session, timed_dataflow
    began = time.perf_counter()
    summary = pipeline.label(image, output, config, quiet=True)
    assert summary.images == 1
    _STEPS["of that, the image"] = sum(stage.seconds for stage in summary.stages.values())
    inside = ("Ray starts", "actors load models and label", "Ray stops")
    _STEPS["rest of the job"] = time.perf_counter() - began - sum(_STEPS[n] for n in inside)


def cascade(path: str) -> None:
    """Label one image twice in this process."""
    with step("import the cascade"):
        from salip_ray.cascade.cascade import Cascade
        from salip_ray.config import load_config
    import cv2
    import torch

    torch.set_num_threads(1)
    image = cv2.imread(path)
    assert image is not None
    with step("load the models"):
        label = Cascade(load_config("lungs"))
    with step("first image"):
        label(image)
    with step("second image"):
        label(image)


if __name__ == "__main__":
    {"job": job, "cascade": cascade}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(_STEPS))
