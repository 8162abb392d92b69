"""Which DICOM files make a volume, and which must not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from salip_ray.sources.series import SliceGeometry, group_series, series_of

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def at(depth, marks=None, **changes):
    geometry = SliceGeometry("1.2", AXIAL, (5.0, 6.0, float(depth)), (64, 64))
    values = tuple((marks or {}).items())
    return dataclasses.replace(geometry, **{"marks": values, **changes})


def volumes(geometries):
    """The files of each volume, in the order of their first file."""
    return sorted(volume.files for volume in group_series(geometries))


def test_order_follows_positions_not_names():
    (volume,) = group_series({"a": at(9), "b": at(3), "c": at(6)})
    assert volume.files == ("b", "c", "a")
    assert (volume.duplicates, volume.gaps, volume.split_by, str(volume)) == ((), 0, (), "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"orientation": SAGITTAL}, "ImageOrientationPatient"),
        ({"size": (32, 64)}, "Rows or Columns"),
        ({"spacing": (2.0, 2.0)}, "PixelSpacing"),
        ({"spacing": None}, "PixelSpacing"),
    ],
)
def test_a_slice_of_another_grid_is_in_no_volume_of_the_others(change, reason):
    one = {"spacing": (1.0, 1.0)}
    geometries = {"a": at(1, **one), "b": at(2, **one), "x": at(3, **{**one, **change})}
    assert volumes(geometries) == [("a", "b"), ("x",)]
    assert {volume.split_by for volume in group_series(geometries)} == {(reason,)}


def test_another_series_is_another_volume_and_no_split():
    grouped = group_series({"a": at(1), "b": at(2), "x": at(1.5, series="1.3")})
    assert [volume.split_by for volume in grouped] == [(), ()]


@pytest.mark.parametrize("jitter", [2e-6, 5e-4])
def test_jitter_of_cosines_and_spacing_splits_nothing(jitter):
    rng = np.random.default_rng(0)
    base = np.array(
        [0.9995, 0.0005, 0.0, 0.0005, 0.9995, 0.0]
    )  # the third decimal rounds both ways
    geometries = {
        f"{n}": at(
            3 * n,
            orientation=tuple(base + rng.uniform(-jitter, jitter, 6)),
            spacing=tuple(0.7 + rng.uniform(-1e-6, 1e-6, 2)),
        )
        for n in range(5)
    }
    (volume,) = group_series(geometries)
    assert volume.files == tuple("01234")
    assert str(volume) == ""


def test_jitter_far_from_the_origin_neither_reorders_nor_opens_gaps():
    rng = np.random.default_rng(1)
    geometries = {
        f"{n:02d}": at(
            0,
            position=(900.0, -900.0, n * 1.0),
            orientation=tuple(np.array(AXIAL) + rng.uniform(-1e-3, 1e-3, 6)),
        )
        for n in range(20)
    }
    (volume,) = group_series(geometries)
    assert volume.files == tuple(sorted(geometries))
    assert volume.gaps == 0


def test_the_normal_counts_if_slices_are_not_axial():
    geometries = {
        name: at(0, orientation=SAGITTAL, position=(depth, 0.0, 0.0))
        for name, depth in (("x", 4.0), ("y", 2.0))
    }
    assert volumes(geometries) == [("x", "y")]  # the normal of this orientation points left


def test_gaps_and_duplicates_are_reported():
    depths = (0, 3, 3.001, 6, 12, 15)
    (volume,) = group_series({f"{n}": at(d) for n, d in enumerate(depths)})
    assert volume.files == ("0", "1", "3", "4", "5")
    assert volume.duplicates == ("2",)
    assert str(volume) == "1 duplicate position and 1 gap"


def test_slices_of_five_microns_are_not_duplicates():
    (volume,) = group_series({f"{n:03d}": at(n * 0.005) for n in range(100)})
    assert len(volume.files) == 100


@pytest.mark.parametrize(
    "keyword",
    [
        "TemporalPositionIdentifier",
        "AcquisitionNumber",
        "EchoNumbers",
        "EchoTime",
        "DiffusionBValue",
        "TriggerTime",
        "AcquisitionTime",
        "ImageType",
    ],
)
def test_each_time_point_is_a_volume(keyword):
    """Numbers restart in each, and names mix the two."""
    geometries = {
        f"x{3 * (2 * n + time) % 10}": at(3 * n, {keyword: f"{time}"}, number=n)
        for n in range(5)
        for time in (1, 2)
    }
    grouped = group_series(geometries)
    assert [len(volume.files) for volume in grouped] == [5, 5]
    for volume in grouped:
        assert len({geometries[name].mark(keyword) for name in volume.files}) == 1
        assert [geometries[name].number for name in volume.files] == [0, 1, 2, 3, 4]
        assert (volume.duplicates, volume.split_by) == ((), (keyword,))


def test_time_points_of_other_positions_are_separate():
    marks = {"TemporalPositionIdentifier": "1"}, {"TemporalPositionIdentifier": "2"}
    geometries = {f"{time}{n}": at(3 * n + time, marks[time]) for n in range(3) for time in (0, 1)}
    assert volumes(geometries) == [("00", "01", "02"), ("10", "11", "12")]


def test_an_acquisition_in_two_parts_is_one_volume():
    geometries = {f"{n}": at(3 * n, {"AcquisitionNumber": str(n // 3)}) for n in range(6)}
    assert volumes(geometries) == [tuple("012345")]


def test_echoes_of_several_time_points_are_separate():
    geometries = {
        f"{time}{echo}{n}": at(n, {"AcquisitionNumber": time, "EchoNumbers": echo})
        for time in "12"
        for echo in "12"
        for n in range(3)
    }
    assert volumes(geometries) == [
        tuple(f"{key}{n}" for n in range(3)) for key in ("11", "12", "21", "22")
    ]


@pytest.mark.parametrize("order", ["numbers", "times"])
def test_without_an_identifier_the_order_in_time_tells_time_points_apart(order):
    """Acquisition times differ from slice to slice, as in a 2-D sequence."""
    geometries = {}
    for count, (time, n) in enumerate((time, n) for time in (0, 1, 2) for n in (0, 2, 1)):
        marks = {"AcquisitionTime": f"1200{count:02d}.5"} if order == "times" else {}
        number = count if order == "numbers" else 1
        geometries[f"{(7 * count) % 9}"] = at(4 * n, marks, number=number)
        geometries[f"{(7 * count) % 9}"] = dataclasses.replace(
            geometries[f"{(7 * count) % 9}"], instance=f"{time}.{n}"
        )
    grouped = group_series(geometries)
    assert len(grouped) == 3
    for volume in grouped:
        assert len({geometries[name].instance[0] for name in volume.files}) == 1
        assert [geometries[name].instance[2] for name in volume.files] == ["0", "1", "2"]


def test_time_points_that_nothing_tells_apart_are_in_no_volume():
    geometries = {f"{time}{n}": at(n, instance=f"{time}{n}") for n in range(3) for time in "ab"}
    grouped = group_series(geometries)
    assert [len(volume.files) for volume in grouped] == [1] * 6
    assert {volume.split_by for volume in grouped} == {
        ("repeated positions that no attribute tells apart",)
    }


def test_a_copied_folder_is_one_volume_and_its_copies():
    geometries = {
        f"{folder}/{n}": at(n, instance=f"9.{n}", number=n) for n in range(3) for folder in "ab"
    }
    (volume,) = group_series(geometries)
    assert volume.files == ("a/0", "a/1", "a/2")
    assert volume.duplicates == ("b/0", "b/1", "b/2")


def test_stations_side_by_side_are_separate():
    geometries = {
        f"{x}-{n}": at(0, position=(x, 0.0, 3.0 * n)) for n in range(3) for x in (0.0, 300.0)
    }
    grouped = volumes(geometries)
    assert grouped == [tuple(f"{x}-{n}" for n in range(3)) for x in (0.0, 300.0)]


def test_a_tilted_gantry_is_one_volume():
    (volume,) = group_series({f"{n}": at(0, position=(0.0, 1.5 * n, 5.0 * n)) for n in range(6)})
    assert len(volume.files) == 6


def test_the_order_of_listing_changes_nothing():
    names = [f"{time}{n}" for n in range(4) for time in "12"]
    geometries = {name: at(name[1], {"AcquisitionNumber": name[0]}) for name in names}
    again = {name: geometries[name] for name in reversed(names)}
    assert group_series(geometries) == group_series(again)


def test_the_series_of_a_volume_is_the_part_before_the_dash():
    assert series_of("0123abcd-99ff00aa") == series_of("0123abcd") == "0123abcd"
    assert series_of("1.2.840.1-99ff00aa") == "1.2.840.1"
