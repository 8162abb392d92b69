"""Grey values behind pictures of more than 8 bits: in the units of the file, brighter is larger."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.config import ImageConfig
from salip_ray.sources.decode import open_stack
from tests.tiff_files import tiff

VALUES = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 7


def png(values):
    buffer = io.BytesIO()
    Pil.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def nifti():
    image = nibabel.Nifti1Image(np.repeat(VALUES[:, :, None], 2, 2).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1000)
    return image.to_bytes()


def read(data, name, index=0):
    stack = open_stack(data, name, ImageConfig())
    return stack.intensities(index) if stack.intensities else None


def test_16_bit_png_and_tiff_give_their_values():
    np.testing.assert_array_equal(read(png(VALUES), "a.png"), VALUES)
    np.testing.assert_array_equal(read(tiff(VALUES), "a.tif"), VALUES)
    inverted = read(tiff(VALUES, photometric=0), "a.tif")
    np.testing.assert_array_equal(inverted, -VALUES.astype(float))


def test_slice_has_rescaled_values_in_orientation_of_its_picture():
    values = read(nifti(), "a.nii", 1)
    picture = open_stack(nifti(), "a.nii", ImageConfig()).picture(1)
    assert values.shape == picture.shape[:2]
    assert values.min() == -1000
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(picture[..., 0].ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_8_bit_pictures_have_none(shape):
    assert read(png(np.zeros(shape, np.uint8)), "a.png") is None
