"""The simulation finds the expected bottleneck and its rate."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from benchmarks.simulation import Setting, simulate
from benchmarks.svg import line_plot

EASY = Setting(
    gpu_seconds=0.1,
    fetch_seconds=0.01,
    commit_seconds=0.001,
    task_seconds=0.0001,
    block_rows=16,
    cores_per_gpu=4,
    requests_per_second=1e6,
    losses_per_hour=0.0,
    away_seconds=0.0,
)


def test_gpus_limit_throughput_of_easy_job():
    results = simulate(EASY, 8, blocks=2000)
    assert results["images_per_second"] == pytest.approx(80, rel=0.03)
    assert results["busy"]["gpu"] > 0.97
    assert results["redone"] == 0


def test_a_slow_driver_is_the_limit():
    slow = replace(EASY, task_seconds=0.05)  # four tasks a block: 80 images/s
    results = simulate(slow, 64, blocks=8000)
    assert results["images_per_second"] == pytest.approx(16 / 0.2, rel=0.05)
    assert results["busy"]["driver"] > 0.97
    assert results["busy"]["gpu"] < 0.2


def test_a_slow_store_is_the_limit():
    results = simulate(replace(EASY, requests_per_second=100), 64, blocks=8000)
    assert results["images_per_second"] == pytest.approx(100, rel=0.05)


def test_lost_nodes_cost_only_their_blocks():
    risky = replace(EASY, losses_per_hour=20, away_seconds=60)
    results = simulate(risky, 16, blocks=3000)
    # A block takes 1.6 s, so one in 112 is lost; a GPU is away for a quarter of the time.
    assert results["redone"] == pytest.approx(1.6 * 20 / 3600, rel=0.5)
    assert results["images_per_second"] == pytest.approx(160 / (1 + 20 * 60 / 3600), rel=0.1)


def test_the_same_seed_gives_the_same_figures():
    assert simulate(EASY, 4, blocks=500) == simulate(EASY, 4, blocks=500)


def test_a_plot_is_well_formed_and_has_every_line():
    lines = {"a & b": [(1, 10), (10, 100)], "c": [(1, 1), (10, 1)]}
    drawn = line_plot(lines, title="T", x_label="x", y_label="y", log_x=True, log_y=True)
    texts = [node.text for node in ET.fromstring(drawn).iter() if node.tag.endswith("text")]
    assert {"a & b", "c", "T", "x", "y"} <= set(texts)
