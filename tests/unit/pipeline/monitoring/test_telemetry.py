"""What a job counts for Prometheus, and the dashboard that draws it."""

from __future__ import annotations

import json
import re
from typing import ClassVar

import pytest

from salip_ray.pipeline.monitoring import telemetry
from tests.conftest import ROOT


class Recorded:
    """Stands in for Ray's Counter and Gauge, which need a cluster."""

    values: ClassVar[dict] = {}

    def __init__(self, name):
        self.name = name

    def inc(self, value=1.0, tags=None):
        key = (self.name, (tags or {}).get("stage"))
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value, tags=None):
        self.values[(self.name, (tags or {}).get("stage"))] = value


@pytest.fixture
def counted(monkeypatch):
    values: dict = {}
    monkeypatch.setattr(Recorded, "values", values)
    monkeypatch.setattr(telemetry, "_make", lambda kind, name, run: Recorded(name))
    return values


def test_queue_is_difference_between_stages(counted):
    job = telemetry.JobMetrics(["fetch", "propose", "refine"], "run")
    job.done("fetch", 2, 0.2, failed=0)
    job.done("fetch", 1, 0.1, failed=0)
    job.done("propose", 1, 0.5, failed=1)
    job.committed()
    assert counted["salip_queue_images", "propose"] == 2
    assert counted["salip_queue_images", "refine"] == 1
    job.done("refine", 1, 0.0, failed=0)
    assert counted["salip_queue_images", "refine"] == 0
    assert counted["salip_images_total", "fetch"] == 3
    assert counted["salip_stage_seconds_total", "fetch"] == pytest.approx(0.3)
    assert counted["salip_errors_total", "propose"] == 1
    assert ("salip_errors_total", "fetch") not in counted
    assert counted["salip_shards_committed_total", None] == 1


def test_memory_is_looked_at_now_and_then(counted, monkeypatch):
    monkeypatch.setattr(telemetry, "device_memory", lambda: ("cuda:0", 7))
    gauge = telemetry.MemoryGauge("propose", "run")
    gauge.look(1)
    assert counted["salip_device_memory_bytes", "propose"] == 7
    monkeypatch.setattr(telemetry, "device_memory", lambda: ("cuda:0", 8))
    gauge.look(1)
    assert counted["salip_device_memory_bytes", "propose"] == 7


def test_device_memory_without_gpu_is_that_of_process():
    device, held = telemetry.device_memory()
    assert device == "cpu"
    assert held > 10e6


def test_the_dashboard_draws_metrics_that_exist_and_all_of_them():
    board = json.loads((ROOT / "infra" / "grafana" / "dashboard.json").read_text())
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    drawn = {name for target in targets for name in re.findall(r"ray_(salip_\w+)", target["expr"])}
    assert drawn == set(telemetry.METRICS)
    for target in targets:
        for label in re.findall(r"by \(([\w, ]+)\)", target["expr"]):
            name = re.search(r"ray_(salip_\w+)", target["expr"]).group(1)
            assert set(label.split(", ")) <= {*telemetry.METRICS[name][1], "run"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert board["uid"] == "salip-ray"
