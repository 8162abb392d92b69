"""Memory, devices and workers that fail: smaller batches, error rows, new workers."""

from __future__ import annotations

import logging
import subprocess
import sys

import pyarrow as pa
import pytest
import torch

from salip_ray.config import load_config
from salip_ray.errors import ResourceError
from salip_ray.pipeline.actors import StageActor
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.pipeline.rows import columns
from salip_ray.pipeline.stages import Stage
from salip_ray.pipeline.workers.deaths import MOST_DEATHS
from salip_ray.pipeline.workers.devices import is_broken_device, require_working
from salip_ray.pipeline.workers.memory import is_out_of_memory

TASK = {"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}}}


class Hungry(Stage):
    """A stage that fits ``fits`` points into memory."""

    name = "propose"
    adds = ("n_candidates",)

    def __init__(self, fits, problem):
        super().__init__(load_config(TASK))
        self.batch_size = self.now = 64
        self.fits, self.problem, self.tried = fits, problem, []

    def use_batches(self, size):
        self.now = size

    def work(self, row):
        self.tried.append(self.now)
        if self.now > self.fits:
            raise self.problem
        return {"n_candidates": self.now}


def actor_of(stage, config=None, reporter=None):
    config = config or load_config(TASK)
    return StageActor([lambda _: stage], config, 1, reporter or StageReporter())


def rows(count=1):
    values = {
        "image_id": [f"{n:032x}" for n in range(count)],
        "status": ["ok"] * count,
        "error": [None] * count,
        "_seconds": [{"fetch": 0.1}] * count,
        "_fallbacks": [None] * count,
    }
    return pa.table({name: pa.array(v, columns.TYPES[name]) for name, v in values.items()})


def done(stage, batch, reporter=None):
    actor = actor_of(stage, reporter=reporter)
    return [row for table in actor(batch) for row in table.to_pylist()]


PROBLEMS = [
    MemoryError("host"),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=["host", "device", "allocator", "cuda", "cublas"])
def test_half_the_batch_is_tried_and_recorded(problem):
    stage = Hungry(16, problem)
    first, second = done(stage, rows(2))
    for row in (first, second):
        assert (row["status"], row["n_candidates"]) == ("ok", 16)
        assert row["_fallbacks"] == [{"stage": "propose", "batch": 16}]
    # Each row begins with the full batch: its bytes do not depend on the row before.
    assert stage.tried == [64, 32, 16, 64, 32, 16]
    assert stage.now == 64


def test_a_row_that_fits_no_batch_is_an_error():
    stage = Hungry(0, torch.OutOfMemoryError("CUDA out of memory"))
    (row,) = done(stage, rows())
    assert row["status"] == "error"
    assert row["error"]["type"] == "OutOfMemoryError"
    assert stage.tried == [64, 32, 16, 8, 4, 2, 1]
    assert stage.now == 64


def test_other_errors_are_not_retried():
    stage = Hungry(0, RuntimeError("shapes cannot be multiplied"))
    (row,) = done(stage, rows())
    assert row["status"] == "error"
    assert stage.tried == [64]


class Ended(BaseException):
    """Raised in place of the end of a worker."""


@pytest.mark.parametrize(
    "message", ["uncorrectable ECC error encountered", "an illegal memory access"]
)
def test_a_broken_device_ends_its_worker_at_the_first_row(monkeypatch, caplog, message):
    def ends(status):
        assert status
        raise Ended

    monkeypatch.setattr("os._exit", ends)
    caplog.set_level(logging.INFO, "salip_ray")
    stage = Hungry(0, RuntimeError(f"CUDA error: {message}"))
    with pytest.raises(Ended):
        done(stage, rows(2))
    assert stage.tried == [64]
    (record,) = caplog.records
    assert (record.getMessage(), record.fields["stage"]) == ("device_broken", "propose")
    assert record.fields["image_id"] == f"{0:032x}"
    assert message in record.fields["message"]


def test_errors_of_a_broken_device_are_recognised():
    class AcceleratorError(RuntimeError):
        """As torch raises it."""

    assert is_broken_device(AcceleratorError("an unspecified launch failure"))
    assert not any(is_broken_device(problem) for problem in PROBLEMS)
    assert not is_broken_device(RuntimeError("expected CUDA error"))
    assert not is_broken_device(ValueError("CUDA error"))


def test_a_gpu_without_kernels_fails_before_any_row(monkeypatch):
    message = "CUDA error: no kernel image is available for execution on the device"

    def fails(*_, **__):
        raise RuntimeError(f"{message}\nCUDA kernel errors might be reported asynchronously")

    monkeypatch.setattr("salip_ray.models.devices.resolve_device", torch.device)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Tesla K80")
    monkeypatch.setattr("torch.ones", fails)
    config = load_config(TASK, overrides={"run": {"device": "cuda"}})
    with pytest.raises(ResourceError, match=rf"^cuda \(Tesla K80\) fails .*\({message}\)"):
        actor_of(Hungry(64, MemoryError()), config)
    on_cpu = load_config(TASK, overrides={"run": {"device": "cpu"}})
    actor_of(Hungry(64, MemoryError()), on_cpu)


def test_a_full_gpu_does_not_fail_the_start(monkeypatch):
    asked = []

    def full(*_, **where):
        asked.append(where)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.ones", full)
    require_working(torch.device("cuda"))
    assert asked == [{"device": torch.device("cuda")}]


def test_errors_of_torch_are_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("no"))
    assert not is_out_of_memory(KeyError("memory"))


def test_an_image_that_workers_died_on_is_given_up():
    class Ledger(StageReporter):
        def __init__(self):
            super().__init__()
            self.counts = True

        def deaths(self):
            return {f"{0:032x}": MOST_DEATHS, f"{1:032x}": MOST_DEATHS - 1}

    first, second = done(Hungry(64, MemoryError()), rows(2), Ledger())
    assert first["error"]["type"] == "WorkerDiedError"
    assert "3 workers died" in first["error"]["message"]
    assert second["status"] == "ok"


def test_only_rows_that_a_stage_works_on_count_as_processed():
    class Ledger(StageReporter):
        def __init__(self):
            super().__init__()
            self.passed = []

        def done(self, stage, seconds, *, error=None, row=None, passed=False):
            self.passed.append(passed)

    ledger, batch = Ledger(), rows(3)
    status = pa.array(["error", "ok", "empty"], columns.TYPES["status"])
    column = batch.schema.get_field_index("status")
    done(Hungry(64, MemoryError()), batch.set_column(column, "status", status), ledger)
    assert ledger.passed == [True, False, True]


@pytest.mark.parametrize(("after", "ends"), [("2", True), ("9", False), ("None", False)])
def test_a_recycled_process_ends_between_batches(after, ends):
    code = (
        "import time; from salip_ray.pipeline.workers import recycling;"
        f"recycling._DELIVERY_SECONDS = 0.2; recycler = recycling.Recycler({after})\n"
        "with recycler.busy(2): time.sleep(0.5)\n"
        "with recycler.busy(2): time.sleep(1); print('finished', flush=True)\n"
        "time.sleep(2); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["finished"] if ends else ["finished", "alive"])
