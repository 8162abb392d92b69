"""Which DICOM files make a volume."""

from __future__ import annotations

import dataclasses

from salip_ray.sources.series import SliceGeometry, group_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def at(depth, **changes):
    place = SliceGeometry("1.2", AXIAL, (5.0, 6.0, depth), (64, 64))
    return dataclasses.replace(place, **changes)


def test_the_order_is_that_of_positions_not_of_names():
    (volume,) = group_series({"a": at(9.0), "b": at(3.0), "c": at(6.0)})
    assert volume.files == ("b", "c", "a")
    assert (volume.duplicates, volume.gaps, str(volume)) == ((), 0, "")


def test_series_orientation_and_size_part_volumes():
    places = {
        "a": at(1.0),
        "b": at(2.0),
        "scout": at(0.0, orientation=SAGITTAL),
        "other": at(1.5, series="1.3"),
        "small": at(1.5, size=(32, 64)),
    }
    (volume,) = group_series(places)
    assert volume.files == ("a", "b")


def test_the_normal_counts_where_slices_are_not_axial():
    places = {
        name: at(0.0, orientation=SAGITTAL, position=(depth, 0.0, 0.0))
        for name, depth in (("x", 4.0), ("y", 2.0))
    }
    (volume,) = group_series(places)
    assert volume.files == ("x", "y")  # the normal of this orientation points to the left


def test_gaps_and_duplicates_are_reported():
    depths = (0, 3, 3.001, 6, 12, 15)
    (volume,) = group_series({f"{n}": at(float(d)) for n, d in enumerate(depths)})
    assert volume.files == ("0", "1", "3", "4", "5")
    assert volume.duplicates == ("2",)
    assert str(volume) == "1 duplicate position and 1 gap"
