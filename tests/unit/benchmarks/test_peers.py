"""The comparison with other packages: every package does the same work, and differences show."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peer_candidates import named, of_work
from benchmarks.peer_output import Output, agreement
from benchmarks.peer_work import prepare, settings_of, widest_gap
from benchmarks.peers import ALLOCATORS, Row

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    prepare("tiny", folder, POINTS)
    return folder


@pytest.fixture(scope="module")
def image(tiny):
    return np.load(tiny / "image.npy")


@pytest.fixture(scope="module")
def reference(tiny, image):
    return named("segment_anything", "tiny").load("tiny", tiny)(image)


def square(start, side=20):
    mask = np.zeros((40, 30), np.bool_)
    mask[start : start + side, 4:24] = True
    return mask


def test_some_masks_pass_the_thresholds(tiny, reference):
    settings = settings_of(tiny)
    assert 0 < settings["pred_iou_thresh"] < 1
    assert 0 < settings["stability_score_thresh"] < 1
    assert 2 <= len(reference.masks) < 3 * POINTS**2
    assert len({mask.tobytes() for mask in reference.masks}) > 1


@pytest.mark.parametrize("candidate", [c.name for c in of_work("tiny") if not c.missing])
def test_every_package_makes_the_masks_of_the_official_one(tiny, image, reference, candidate):
    result = named(candidate, "tiny").load("tiny", tiny)(image)
    compared = agreement(result, reference)
    if candidate == "salip-ray, fast":  # bfloat16 moves outlines
        assert compared.least_iou > 0.9
    else:
        assert compared.holds, compared


def test_a_cascade_equals_the_serial_loop(tmp_path):
    prepare("cascade-bundled", tmp_path, POINTS)
    image = np.load(tmp_path / "image.npy")
    work = "cascade-bundled"
    ours, official = (
        named(name, work).load(work, tmp_path)(image)
        for name in ("salip-ray, exact", "official packages")
    )
    assert official.picks
    assert official.labels
    compared = agreement(ours, official)
    assert compared.holds, compared
    assert "same picks" in compared.text(cascade=True)


def test_a_process_prints_its_seconds_and_writes_its_masks(tiny, reference):
    row = Row("tiny", named("salip-ray, exact", "tiny"), "retained")
    figures = peers.run(row, tiny, threads=1, repeats=2, output=tiny / "result.npz")
    assert row.error is None
    assert len(figures["seconds"]) == len(figures["cpu_seconds"]) == 2
    assert figures["peak_bytes"] > 0
    assert agreement(Output.load(tiny / "result.npz"), reference).holds


def test_a_failure_is_a_row_of_the_table(tmp_path, monkeypatch):
    row = Row("tiny", named("salip-ray, exact", "tiny"), "as it comes")
    monkeypatch.setattr(peers.sys, "executable", "/bin/false")
    assert peers.run(row, tmp_path, threads=1, repeats=1, output=None) is None
    assert "FAILED: exit status 1" in peers.table([row])


def test_a_result_survives_its_file(tmp_path):
    result = Output([square(2), square(9)], {"organ": [1]}, {"organ": square(9)})
    result.save(tmp_path / "r.npz")
    loaded = Output.load(tmp_path / "r.npz")
    assert loaded.picks == result.picks
    np.testing.assert_array_equal(loaded.masks, result.masks)
    np.testing.assert_array_equal(loaded.labels["organ"], result.labels["organ"])
    Output([]).save(tmp_path / "none.npz")
    assert Output.load(tmp_path / "none.npz") == Output([])


@pytest.mark.parametrize(
    ("result", "holds", "text"),
    [
        (Output([square(2), square(9)]), True, "2 of 2, IoU 1.0000"),
        (Output([square(9), square(2)]), True, "2 of 2, IoU 1.0000"),
        (Output([square(2)]), False, "DIFFERS: 1 of 2, IoU 0.4815"),
        (Output([square(2), square(9), square(9)]), False, "DIFFERS: 3 of 2, IoU 1.0000"),
        (Output([square(2), square(10)]), False, "DIFFERS: 2 of 2, IoU 0.9048"),
        (Output([]), False, "DIFFERS: 0 of 2, IoU 0.0000"),
    ],
)
def test_other_masks_are_a_difference(result, holds, text):
    compared = agreement(result, Output([square(2), square(9)]))
    assert compared.holds is holds
    assert compared.text(cascade=False) == text


@pytest.mark.parametrize(
    "result",
    [
        Output([square(2), square(9)], {"organ": [0]}, {"organ": square(9)}),
        Output([square(2), square(9)], {}, {"organ": square(9)}),
        Output([square(2), square(9)], {"organ": [1]}, {"organ": square(12)}),
        Output([square(2), square(9)], {"organ": [1]}, {}),
        Output([square(2), square(9)], {"organ": [1]}, {"organ": square(9), "b": square(2)}),
    ],
    ids=["other pick", "no pick", "other label", "no label", "one label more"],
)
def test_other_picks_and_labels_are_a_difference(result):
    reference = Output([square(2), square(9)], {"organ": [1]}, {"organ": square(9)})
    assert agreement(reference, reference).holds
    assert not agreement(result, reference).holds


def test_the_table_has_medians_ranges_and_ratios_to_the_official_package():
    same = agreement(Output([square(2)]), Output([square(2)]))
    rows = []
    for name, factor in (("segment_anything", 4.0), ("salip-ray, exact", 1.0)):
        for slower, allocator in ((2.0, "as it comes"), (1.0, "retained")):
            row = Row("tiny", named(name, "tiny"), allocator, same)
            row.seconds = [factor * slower * n for n in (1.0, 1.5, 1.1)]
            row.cpu_seconds, row.peak_bytes = row.seconds, 10**9
            rows.append(row)
    assert [row.allocator for row in rows[:2]] == list(ALLOCATORS)
    head, _, *lines = peers.table(rows).splitlines()
    cells = [[cell.strip() for cell in line.split("|")][1:-1] for line in lines]
    assert head.count("|") == len(cells[0]) + 1
    assert cells[0][4:] == ["8.80 (8.00 to 12.00)", "8.80", "1.0", *["1.00 (1.00 to 1.00)"] * 2]
    last = cells[3]
    assert last[4:] == [
        *("1.10 (1.00 to 1.50)", "1.10", "1.0"),
        *("8.00 (8.00 to 8.00)", "4.00 (4.00 to 4.00)"),
    ]


def test_the_widest_gap_is_near_the_quantile():
    values = [0.0, 0.1, 0.2, 0.49, 0.5, 0.52, 0.6, 0.61, 0.9, 1.0, 2.0]
    assert widest_gap(values, 0.5) == pytest.approx(0.56)
    assert 0 <= widest_gap([-1.0, -0.5, 3.0], 0.9) <= 1
