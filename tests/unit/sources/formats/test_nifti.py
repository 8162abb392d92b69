"""Volumes: which slice is which, which way up, and what becomes of odd headers."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from nibabel.testing import data_path

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.sources.decode import open_stack
from salip_ray.sources.formats.nifti import Grid

SHAPE = (5, 6, 7)  # of the body: to the right, to the front, to the head
CODES = [
    "".join(code)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for code in itertools.product(*order)
]


def body() -> np.ndarray:
    """Every voxel says where in the body it is: 100 x + 10 y + z, in RAS."""
    x, y, z = np.mgrid[:5, :6, :7]
    return (100 * x + 10 * y + z).astype(np.int16)


def stored(codes: str, kind=nibabel.Nifti1Image, **changes) -> nibabel.Nifti1Image:
    """The body with its voxels in another order."""
    ras = kind(body(), np.diag([2.0, 3.0, 4.0, 1.0]))
    image = ras.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes
    return image


def opened(image, **config):
    config = {"window": Window(center=300, width=600), **config}
    data = image.to_bytes() if isinstance(image, nibabel.Nifti1Image) else image
    return open_stack(data, "v.nii", ImageConfig(**config))


#: The picture a radiologist sees, in RAS indices [x, y, z] of `body`.
SEEN = {
    "axial": lambda values, k: values[::-1, ::-1, k].T,
    "coronal": lambda values, k: values[::-1, k, ::-1].T,
    "sagittal": lambda values, k: values[k, ::-1, ::-1].T,
}


@pytest.mark.parametrize("axis", sorted(SEEN))
@pytest.mark.parametrize("codes", CODES)
def test_a_slice_is_the_same_however_it_is_stored(codes, axis):
    stack = opened(stored(codes), axis=axis)
    assert stack.count == SHAPE[{"sagittal": 0, "coronal": 1, "axial": 2}[axis]]
    scaled = np.clip(body().astype(float) / 600 * 255, 0, 255)
    for index in range(stack.count):
        wanted = SEEN[axis](scaled, index)
        assert np.abs(stack.picture(index)[..., 0] - wanted).max() <= 0.5
    spacing = {"axial": (3, 2), "coronal": (4, 2), "sagittal": (4, 3)}[axis]
    assert stack.spacing == pytest.approx(spacing)


@pytest.mark.parametrize("axis", sorted(SEEN))
@pytest.mark.parametrize("codes", CODES)
def test_planes_put_together_are_the_volume(codes, axis):
    image = stored(codes)
    values = np.asarray(image.dataobj)
    grid = Grid(values.shape, image.affine, axis)
    again = np.zeros_like(values)
    for index in range(grid.count):
        grid.plane(again, index)[...] = grid.plane(values, index).copy()
    np.testing.assert_array_equal(again, values)


def test_an_oblique_volume_is_cut_along_the_nearest_axis():
    turned = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]]
    stack = opened(nibabel.Nifti1Image(body(), affine))
    assert stack.picture(0).shape == (6, 5, 3)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zipped", [False, True])
def test_versions_byte_orders_and_gzip(kind, order, zipped):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(body(), np.eye(4), header)
    data = image.to_bytes()
    stack = opened(gzip.compress(data) if zipped else data)
    wanted = np.clip(SEEN["axial"](body(), 3) / 600 * 255, 0, 255)
    assert np.abs(stack.picture(3)[..., 0] - wanted).max() <= 0.5


def test_one_range_for_the_volume_and_a_constant_slice_is_even():
    values = np.zeros((8, 8, 4), np.float32)
    values[..., 1], values[..., 2] = 50, 100
    values[..., 3] = np.linspace(0, 100, 64).reshape(8, 8)
    stack = open_stack(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), "v.nii", ImageConfig())
    levels = [np.unique(stack.picture(index)).tolist() for index in range(3)]
    assert [len(level) for level in levels] == [1, 1, 1]
    assert (levels[0], levels[2]) == ([0], [255])
    assert 125 <= levels[1][0] <= 130


def test_scale_factors_are_applied():
    image = nibabel.Nifti1Image(body(), np.eye(4))
    image.header.set_slope_inter(2, -100)
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([2, -100], "<f4").tobytes()  # scl_slope, scl_inter
    stack = open_stack(bytes(raw), "v.nii", ImageConfig(window=Window(center=300, width=600)))
    wanted = np.clip((SEEN["axial"](body(), 2) * 2.0 - 100) / 600 * 255, 0, 255)
    assert np.abs(stack.picture(2)[..., 0] - wanted).max() <= 0.5


def test_a_volume_of_several_is_chosen():
    both = np.stack([body(), 400 - body()], axis=-1)
    data = nibabel.Nifti1Image(both, np.eye(4)).to_bytes()
    window = Window(center=300, width=600)
    second = open_stack(data, "v.nii", ImageConfig(volume_index=1, window=window)).picture(1)
    wanted = np.clip(SEEN["axial"](400 - body(), 1) / 600 * 255, 0, 255)
    assert np.abs(second[..., 0] - wanted).max() <= 0.5
    with pytest.raises(ImageError, match="volume_index is 2, but the file holds 2"):
        open_stack(data, "v.nii", ImageConfig(volume_index=2))


def test_small_integers_are_counted_as_numpy_would():
    values = np.random.default_rng(0).normal(0, 900, (20, 21, 22)).astype(np.int16)
    config = ImageConfig(percentiles=(3, 91.7))
    stack = open_stack(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), "v.nii", config)
    low, high = np.percentile(values, (3, 91.7))
    wanted = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    found = stack.picture(5)[..., 0].astype(float)
    assert np.abs(found - SEEN["axial"](wanted, 5)).max() <= 1


def test_bad_files():
    good = nibabel.Nifti1Image(body(), np.eye(4)).to_bytes()
    config = ImageConfig()
    for data, said in [
        (b"no volume at all", "not a NIfTI"),
        (good[:-1], "truncated"),
        (gzip.compress(good)[:-20], "gzip stream ends early"),
        (good[:344] + b"ni1\0" + good[348:], "another file"),
        (good[:40] + np.array([3, 5, 0, 7], "<i2").tobytes() + good[48:], "shape"),
    ]:
        with pytest.raises(ImageError, match=said):
            open_stack(data, "v.nii.gz", config)
    with pytest.raises(ImageError, match="unpacks to more than"):
        open_stack(gzip.compress(bytes(10**6)), "v.nii.gz", ImageConfig(max_bytes=10**5))


def test_nibabels_own_files():
    for path in sorted(Path(data_path).glob("*.nii*")):
        if path.name == "row_major.dconn.nii":  # a matrix, no volume
            continue
        stack = open_stack(path.read_bytes(), path.name, ImageConfig())
        grey = stack.picture(stack.count // 2)[..., 0]
        assert grey.min() < grey.max()
