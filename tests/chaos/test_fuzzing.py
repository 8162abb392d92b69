"""Hostile files through the job's own fetch and decode; ``make chaos`` feeds it thousands."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salip_ray import Cascade
from tests.chaos.fuzzing import (
    HARMLESS,
    MUTATIONS,
    Sample,
    config,
    decode_together,
    fault_of,
    fuzz,
    mutate,
    originals,
    rows_of,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seeds=st.lists(st.integers(0, 2**32), min_size=5, max_size=5))
def test_whatever_a_file_holds_it_is_pixels_or_an_error_with_a_reason(seeds, tmp_path):
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


def test_the_check_sees_what_is_wrong(tmp_path):
    """A harness that cannot fail proves nothing."""
    path = tmp_path / "a.png"
    path.write_bytes(originals()["grey.png"])
    (row,) = rows_of([path])
    control = Sample("grey.png", b"", "control", "grey.png")
    assert fault_of(control, row, row) is None
    assert fault_of(control, {**row, "_working": b"\0" * len(row["_working"])}, row)
    assert fault_of(
        control,
        {**row, "status": "error", "error": {"stage": "x", "type": "y", "message": "no"}},
        row,
    )
    nameless = {**row, "status": "error", "error": {"stage": "x", "type": "y", "message": ""}}
    assert fault_of(Sample("a", b"", "flip", "grey.png"), nameless, row)
    assert fault_of(Sample("a", b"", "flip", "grey.png"), {**row, "_working": None}, row)


def test_a_process_that_crashes_is_told_by_file(tmp_path, monkeypatch):
    found = fuzz(50, 3, tmp_path)
    assert (found.files, found.faults) == (50, [])
    assert len(found.kinds) >= 8


def test_what_decodes_is_labelled(tmp_path):
    cascade = Cascade(config(), device="cpu")
    files = [tmp_path / name for name in ("float.tif", "deep.png", "grey.jpg", "palette.png")]
    for path in files:
        path.write_bytes(originals()[path.name])
    pictures = [
        np.frombuffer(row["_working"], np.uint8).reshape(64, -1, 3) for row in rows_of(files)
    ]
    for picture in (
        *pictures,
        np.zeros((64, 53, 3), np.uint8),
        np.full((64, 53, 3), 255, np.uint8),
    ):
        labels = cascade(picture)
        assert all(mask.mask.shape == picture.shape[:2] for mask in labels.masks)
        assert [outcome.label for outcome in labels.outcomes] == ["lungs"]


def test_nan_and_constant_images(tmp_path):
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
    rows = dict(zip(files, rows_of(list(files.values())), strict=True))
    for name in ("nan", "infinite"):
        assert rows[name]["status"] == "error"
        assert "no finite value" in rows[name]["error"]["message"]
    for name in ("some-nan", "constant", "black"):
        assert rows[name]["status"] == "ok"
        assert not np.frombuffer(rows[name]["_working"], np.uint8).any()


@pytest.mark.slow
def test_ten_thousand_files(tmp_path):
    found = fuzz(10_000, 1, tmp_path)
    assert found.files == 10_000
    assert set(MUTATIONS) < set(found.kinds)
    assert found.faults == []
