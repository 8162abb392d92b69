"""Volumes: which slice is which, which way up, and the result of odd headers."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
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
VIEWS = {
    "axial": lambda values, k: values[::-1, ::-1, k].T,
    "coronal": lambda values, k: values[::-1, k, ::-1].T,
    "sagittal": lambda values, k: values[k, ::-1, ::-1].T,
}


@pytest.mark.parametrize("axis", sorted(VIEWS))
@pytest.mark.parametrize("codes", CODES)
def test_a_slice_is_the_same_however_it_is_stored(codes, axis):
    stack = opened(stored(codes), axis=axis)
    assert stack.count == SHAPE[{"sagittal": 0, "coronal": 1, "axial": 2}[axis]]
    scaled = np.clip(body().astype(float) / 600 * 255, 0, 255)
    for index in range(stack.count):
        wanted = VIEWS[axis](scaled, index)
        assert np.abs(stack.picture(index)[..., 0] - wanted).max() <= 0.5
    spacing = {"axial": (3, 2), "coronal": (4, 2), "sagittal": (4, 3)}[axis]
    assert stack.spacing == pytest.approx(spacing)


@pytest.mark.parametrize("axis", sorted(VIEWS))
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
    wanted = np.clip(VIEWS["axial"](body(), 3) / 600 * 255, 0, 255)
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
    wanted = np.clip((VIEWS["axial"](body(), 2) * 2.0 - 100) / 600 * 255, 0, 255)
    assert np.abs(stack.picture(2)[..., 0] - wanted).max() <= 0.5


def test_a_volume_of_several_is_chosen():
    both = np.stack([body(), 400 - body()], axis=-1)
    data = nibabel.Nifti1Image(both, np.eye(4)).to_bytes()
    window = Window(center=300, width=600)
    second = open_stack(data, "v.nii", ImageConfig(volume_index=1, window=window)).picture(1)
    wanted = np.clip(VIEWS["axial"](400 - body(), 1) / 600 * 255, 0, 255)
    assert np.abs(second[..., 0] - wanted).max() <= 0.5
    with pytest.raises(ImageError, match="volume_index is 2, but the file holds 2"):
        open_stack(data, "v.nii", ImageConfig(volume_index=2))


def test_small_integers_are_counted_as_numpy_would():
    values = np.random.default_rng(0).normal(0, 900, (20, 21, 22)).astype(np.int16)
    config = ImageConfig(percentiles=(3, 91.7))
    stack = open_stack(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), "v.nii", config)
    low, high = np.percentile(values, (3, 91.7))
    wanted = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    decoded = stack.picture(5)[..., 0].astype(float)
    assert np.abs(decoded - VIEWS["axial"](wanted, 5)).max() <= 1


def test_bad_files():
    good = nibabel.Nifti1Image(body(), np.eye(4)).to_bytes()
    config = ImageConfig()
    for data, message in [
        (b"no volume at all", "not a NIfTI"),
        (good[:-1], "truncated"),
        (gzip.compress(good)[:-20], "gzip stream ends early"),
        (good[:344] + b"ni1\0" + good[348:], "another file"),
        (good[:40] + np.array([3, 5, 0, 7], "<i2").tobytes() + good[48:], "shape"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_stack(data, "v.nii.gz", config)
    with pytest.raises(ImageError, match="unpacks to more than"):
        open_stack(gzip.compress(good), "v.nii.gz", ImageConfig(max_bytes=700))


def test_nibabels_own_files():
    for path in sorted(Path(data_path).glob("*.nii*")):
        if path.name == "row_major.dconn.nii":  # a matrix, no volume
            continue
        stack = open_stack(path.read_bytes(), path.name, ImageConfig())
        grey = stack.picture(stack.count // 2)[..., 0]
        assert grey.min() < grey.max()


# ------------------------------------------------------------- headers as the standard has them


def raw_header(change, values=None, affine=None, *, kind=nibabel.Nifti1Image):
    """A file whose header is changed as nibabel would refuse to."""
    image = kind(body() if values is None else values, np.eye(4) if affine is None else affine)
    data = bytearray(image.to_bytes())
    header = image.header.copy()
    header["magic"] = b"n+1" if kind is nibabel.Nifti1Image else b"n+2\0\r\n\x1a\n"
    header["vox_offset"] = 352 if kind is nibabel.Nifti1Image else 544
    change(header)
    data[: len(header.binaryblock)] = header.binaryblock
    return bytes(data)


def qform_only(qfac=1.0, sizes=(2.0, 3.0, 4.0)):
    def change(header):
        header["sform_code"], header["qform_code"] = 0, 1
        header["quatern_b"] = header["quatern_c"] = header["quatern_d"] = 0
        header["pixdim"][:4] = [qfac, *sizes]

    return change


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("qfac", "sizes", "codes"),
    [
        (1, (2, 3, 4), "RAS"),
        (-1, (2, 3, 4), "RAI"),
        (0, (2, 3, 4), "RAS"),
        (-0.5, (2, 3, 4), "RAI"),
        (7, (2, 3, 4), "RAS"),
        (1, (-2, 3, -4), "RAS"),
        (float("nan"), (2, 3, 4), "RAS"),
    ],
)
def test_a_qform_with_any_qfac_and_sign(qfac, sizes, codes, kind):
    data = raw_header(qform_only(qfac, sizes), kind=kind)
    stack = opened(data)
    wanted = open_stack(
        stored(codes).to_bytes(), "v.nii", ImageConfig(window=Window(center=300, width=600))
    )
    flipped = raw_header(qform_only(), values=body()[:, :, ::-1] if codes == "RAI" else body())
    same = opened(flipped)
    assert stack.spacing == pytest.approx((3, 2)) == wanted.spacing
    for index in range(7):
        np.testing.assert_array_equal(stack.picture(index), same.picture(index))


@pytest.mark.parametrize("sizes", [(2, 3, 0), (2, 3, float("nan"))])
def test_a_size_of_zero_counts_as_one(sizes):
    stack = opened(raw_header(qform_only(sizes=sizes)))
    assert stack.count == 7
    assert stack.spacing == pytest.approx((3, 2))


@pytest.mark.parametrize(("unit", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 + 8, 1)])
def test_spacing_is_in_millimetres(unit, scale):
    data = raw_header(
        lambda header: header.__setitem__("xyzt_units", unit), affine=np.diag([2, 3, 4, 1])
    )
    assert opened(data).spacing == pytest.approx((3 * scale, 2 * scale))


def test_without_codes_the_axes_point_right_front_and_up():
    def change(header):
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][:4] = [1, 2, 3, 4]

    stack = opened(raw_header(change))
    wanted = np.clip(VIEWS["axial"](body(), 2) / 600 * 255, 0, 255)
    assert np.abs(stack.picture(2)[..., 0] - wanted).max() <= 0.5


def test_a_singular_sform_leaves_the_qform():
    def change(header):
        qform_only()(header)
        header["sform_code"] = 1
        for name in ("srow_x", "srow_y", "srow_z"):
            header[name] = 0

    assert opened(raw_header(change)).spacing == pytest.approx((3, 2))

    def hopeless(header):
        change(header)
        header["qform_code"] = 0

    with pytest.raises(ImageError, match="singular"):
        opened(raw_header(hopeless))


def test_a_quaternion_a_little_too_long_is_of_unit_length():
    def change(header):
        qform_only()(header)
        header["quatern_b"] = 1.001  # half a turn about x

    stack = opened(raw_header(change))
    wanted = np.clip(VIEWS["axial"](body()[:, ::-1, ::-1], 2) / 600 * 255, 0, 255)
    assert np.abs(stack.picture(2)[..., 0] - wanted).max() <= 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vox_offset": 0}, "begin within it"),
        ({"datatype": 32, "bitpix": 64}, "COMPLEX64 are not grey"),
        ({"datatype": 2304, "bitpix": 32}, "RGBA32 are not grey"),
        ({"datatype": 9999}, "unknown data type"),
        ({"scl_slope": 1.0, "scl_inter": float("inf")}, "header is corrupt"),
    ],
)
def test_headers_that_cannot_be_read_are_named(change, message):
    def apply(header):
        for name, value in change.items():
            header[name] = value

    with pytest.raises(ImageError, match=message):
        opened(raw_header(apply))


def test_a_gzip_bomb_is_unpacked_as_far_as_its_shape():
    """300 kB that hold 300 MB after a small volume."""
    data = gzip.compress(stored("RAS").to_bytes() + bytes(300_000_000), 9)
    tracemalloc.start()
    assert opened(data).count == 7
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
