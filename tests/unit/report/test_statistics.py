"""The pass over a run: exact counts, fair and repeatable samples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salip_ray.output.reader import LabelOutput
from salip_ray.report.statistics import Histogram, RowRef, collect_statistics, read_rows
from tests.unit.report.conftest import error_row, label_row, mask_cell

MASK = np.ones((4, 5), np.bool_)


def many(n, start=0):
    """Rows whose confidence grows with their number."""
    return [
        label_row(
            f"/in/{i:04d}.png",
            (8, 10),
            [mask_cell(MASK, predicted_iou=0.2 + 0.0005 * i, clip_score=float(i % 60))],
        )
        for i in range(start, start + n)
    ]


def numbers(labels, refs):
    rows = read_rows(labels, refs)
    return [int(rows[ref]["uri"][4:8]) for ref in refs]


def test_every_row_is_counted(run):
    statistics = collect_statistics(LabelOutput.open(str(run)))
    assert (statistics.rows, statistics.n_images) == (8, 8)
    assert statistics.status == {"ok": 5, "empty": 1, "error": 2}
    assert statistics.errors == {("decode", "ImageError"): 2}
    lungs = statistics.classes["lungs"]
    assert lungs.outcomes == {"labelled": 5, "empty": 1}
    assert lungs.reasons == {"SAM proposed no candidate": 1}
    # Of the cascade alone: GT-SAM's masks are not labels.
    assert lungs.area.total == lungs.clip_score.total == 5


def test_area_is_a_share_of_the_image(write_output):
    labels = LabelOutput.open(str(write_output(many(3))))
    area = collect_statistics(labels).classes["lungs"].area
    assert area.quantile(0.5) == pytest.approx(20 / 80, abs=0.001)


def test_small_run_is_shown_completely_least_certain_first(write_output):
    labels = LabelOutput.open(str(write_output(many(4, start=4), many(4))))
    picks = collect_statistics(labels, per_group=4).picks
    assert list(picks) == ["all"]
    assert numbers(labels, picks["all"]) == list(range(8))


def test_groups_of_a_larger_run(write_output):
    labels = LabelOutput.open(
        str(write_output(many(300, start=300), many(300), [error_row("/in/e")]))
    )
    picks = collect_statistics(labels, per_group=5).picks
    assert numbers(labels, picks["worst"]) == [0, 1, 2, 3, 4]
    assert numbers(labels, picks["best"]) == [599, 598, 597, 596, 595]
    assert all(abs(number - 300) < 25 for number in numbers(labels, picks["median"]))
    assert [len(refs) for refs in picks.values()] == [5, 5, 5, 5, 1]
    everywhere = [ref for refs in picks.values() for ref in refs]
    assert len(set(everywhere)) == len(everywhere)


def test_same_seed_gives_the_same_sample(write_output):
    labels = LabelOutput.open(str(write_output(many(200), many(200, start=200))))

    def random(seed):
        return collect_statistics(labels, seed=seed, per_group=6).picks["random"]

    assert random(1) == random(1)
    assert random(1) != random(2)


def test_random_picks_reach_every_row(write_output):
    labels = LabelOutput.open(str(write_output(many(30), many(30, start=30))))
    picked = set()
    for seed in range(40):
        picked |= set(
            numbers(labels, collect_statistics(labels, seed=seed, per_group=5).picks["random"])
        )
    # All but the five worst, the five best and the few in the middle, at some time.
    assert len(picked) == 45


def test_pixels_of_masks_are_not_read_to_count(write_output):
    labels = LabelOutput.open(str(write_output(many(2))))
    heavy = ["masks.rle.counts", "masks.proposed.counts", "masks.instances"]
    table = labels.table("part-00000.parquet", without=heavy)
    assert "size" in str(table.schema.field("masks").type)
    assert "counts" not in str(table.schema.field("masks").type)


def test_run_without_cascade_shows_its_first_method(write_output, lungs_config):
    rows = many(3)
    for row in rows:
        row["masks"][0]["method"] = "unprompted_confident"
    out = write_output(rows)
    run = json.loads((out / "run.json").read_text())
    run["fingerprint"]["recipe"]["run"]["modes"] = ["unprompted"]
    (out / "run.json").write_text(json.dumps(run))
    statistics = collect_statistics(LabelOutput.open(str(out)))
    assert statistics.method == "unprompted_confident"
    assert statistics.classes["lungs"].area.total == 3


def test_rows_are_read_in_full(write_output):
    labels = LabelOutput.open(str(write_output(many(3), many(3, start=3))))
    refs = [RowRef("part-00001.parquet", 2), RowRef("part-00000.parquet", 0)]
    assert numbers(labels, refs) == [5, 0]


def test_histogram_counts_everything_but_nan():
    histogram = Histogram(0.0, 1.0, 10)
    histogram.add(np.array([-1.0, 0.0, 0.05, 0.95, 1.0, 7.0, np.nan]))
    assert histogram.total == 6
    assert histogram.counts[0] == 3
    assert histogram.counts[-1] == 3
    assert np.isnan(Histogram(0.0, 1.0).quantile(0.5))
