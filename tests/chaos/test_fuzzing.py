"""Damaged files in the job's own fetch and decode; ``make chaos`` tries thousands."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salip_ray import Cascade
from tests.chaos.fuzzing import config, decode_together, fault_of, fuzz, rows_of
from tests.chaos.mutations import HARMLESS, MUTATIONS, Sample, mutate
from tests.chaos.originals import originals


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seeds=st.lists(st.integers(0, 2**32), min_size=5, max_size=5))
def test_any_file_becomes_pixels_or_an_error_with_a_reason(seeds, tmp_path):
    samples = [mutate(random.Random(seed)) for seed in seeds]
    assert decode_together(samples, str(tmp_path)) == [None] * len(samples)


@pytest.mark.parametrize("name", sorted(originals()))
def test_harmless_additions_change_nothing(name, tmp_path):
    rng = random.Random(0)
    samples = [
        Sample(*change(name, originals()[name], rng), f"harmless {kind}", name)
        for kind, change in HARMLESS.items()
    ]
    assert decode_together(samples, str(tmp_path)) == [None] * len(samples)


def test_the_check_reports_each_kind_of_fault(tmp_path):
    """The check itself can fail."""
    path = tmp_path / "volume.nii"
    path.write_bytes(originals()["volume.nii"])
    (good,) = rows_of([path])
    assert len(good) == 3
    control, mutated = (Sample("a", b"", kind, "volume.nii") for kind in ("control", "flip"))
    assert fault_of(control, good, good) is None
    other = [*good[:2], {**good[2], "_working": b"\0" * len(good[2]["_working"])}]
    assert fault_of(mutated, other, good) is None
    assert fault_of(control, other, good) == "other pixels than the original's"
    assert fault_of(control, good[:2], good) == "2 pictures, the original has 3"
    refused = {**good[0], "status": "error", "error": {"stage": "x", "type": "y", "message": "no"}}
    assert fault_of(mutated, [refused], good) is None
    assert fault_of(control, [refused, *good[1:]], good) == "refused: no"
    nameless = {**refused, "error": {"stage": "x", "type": "y", "message": ""}}
    assert fault_of(mutated, [nameless], good) == "an error row without a reason"
    assert fault_of(mutated, [{**good[0], "_working": None}], good) == "ok, but no pixels"
    assert fault_of(mutated, [], good) == "no row at all"


def test_a_short_fuzz_run_has_no_faults(tmp_path):
    results = fuzz(50, 3, tmp_path)
    assert (results.files, results.faults) == (50, [])
    assert len(results.kinds) >= 8


def test_every_decoded_image_is_labelled(tmp_path):
    cascade = Cascade(config(), device="cpu")
    files = [tmp_path / name for name in ("float.tif", "deep.png", "grey.jpg", "jpeg.dcm")]
    for path in files:
        path.write_bytes(originals()[path.name])
    pictures = [
        np.frombuffer(row["_working"], np.uint8).reshape(64, -1, 3) for (row,) in rows_of(files)
    ]
    for picture in (
        *pictures,
        np.zeros((64, 53, 3), np.uint8),
        np.full((64, 53, 3), 255, np.uint8),
    ):
        labels = cascade(picture)
        assert all(mask.mask.shape == picture.shape[:2] for mask in labels.masks)
        assert [outcome.label for outcome in labels.outcomes] == ["lungs"]


def test_images_without_finite_values_are_errors_and_constant_ones_are_black(tmp_path):
    from PIL import Image

    files = {}
    for name, pixels in {
        "nan": np.full((20, 30), np.nan, np.float32),
        "some-nan": np.where(np.eye(20, 30) > 0, np.nan, 3.0).astype(np.float32),
        "infinite": np.full((20, 30), np.inf, np.float32),
        "constant": np.full((20, 30), 7.5, np.float32),
        "black": np.zeros((20, 30), np.uint8),
    }.items():
        files[name] = tmp_path / f"{name}.tif"
        Image.fromarray(pixels).save(files[name])
    rows = {name: row for name, (row,) in zip(files, rows_of(list(files.values())), strict=True)}
    for name in ("nan", "infinite"):
        assert rows[name]["status"] == "error"
        assert "no finite value" in rows[name]["error"]["message"]
    for name in ("some-nan", "constant", "black"):
        assert rows[name]["status"] == "ok"
        assert not np.frombuffer(rows[name]["_working"], np.uint8).any()


@pytest.mark.slow
def test_ten_thousand_files(tmp_path):
    results = fuzz(10_000, 1, tmp_path)
    assert results.files == 10_000
    assert set(MUTATIONS) < set(results.kinds)
    assert set(results.formats) == set(originals())
    assert results.faults == []
    assert results.peak_mib < 1000
