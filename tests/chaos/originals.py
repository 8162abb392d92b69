"""Small good files: every format, depth and layout that is decoded."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from tests.unit.sources.formats.test_dicom import make as dicom_file

_KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}


def family(name: str) -> str:
    """Whose decoder a file is for: ``dicom``, ``nifti`` or ``ordinary``."""
    if ".nii" in name:
        return "nifti"
    return "dicom" if name.endswith(".dcm") else "ordinary"


@cache
def originals() -> dict[str, bytes]:
    """The files by name."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    grey = (120 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5) + rng.normal(0, 4, (48, 40))).clip(0, 255)
    volume = np.stack([np.roll(grey, shift, axis=1) for shift in (0, 9, 20)])
    return {**_ordinary(grey, volume), **_dicom(grey, volume), **_nifti(volume)}


def _ordinary(grey: Any, volume: Any) -> dict[str, bytes]:
    grey8, grey16 = grey.astype(np.uint8), (grey * 200).astype(np.uint16)
    rgb = np.stack([grey8, grey8[::-1], 255 - grey8], axis=2)
    pictures: dict[str, tuple[Any, dict[str, Any]]] = {
        "grey.png": (grey8, {}),
        "rgb.png": (rgb, {}),
        "deep.png": (grey16, {}),
        "alpha.png": (np.dstack([rgb, grey8]), {}),
        "grey.jpg": (grey8, {"quality": 90}),
        "rgb.jpg": (rgb, {"quality": 90}),
        "progressive.jpeg": (rgb, {"quality": 80, "progressive": True}),
        "grey.tif": (grey8, {}),
        "deep.tif": (grey16, {}),
        "float.tif": (grey.astype(np.float32), {}),
        "lzw.tiff": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tiff": (grey8, {"compression": "tiff_adobe_deflate"}),
        "lossy.webp": (rgb, {"quality": 80}),
        "lossless.webp": (rgb, {"lossless": True}),
    }
    files = {
        name: _saved(Image.fromarray(pixels), name, **options)
        for name, (pixels, options) in pictures.items()
    }
    files["palette.png"] = _saved(Image.fromarray(rgb).quantize(16), "palette.png")
    pages = [Image.fromarray((plane * 200).astype(np.uint16)) for plane in volume]
    files["pages.tif"] = _saved(pages[0], "pages.tif", save_all=True, append_images=pages[1:])
    return files


def _saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, _KINDS.get(name.rpartition(".")[2], "TIFF"), **options)
    return buffer.getvalue()


def _dicom(grey: Any, volume: Any) -> dict[str, bytes]:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

    grey8, grey16 = grey.astype(np.uint8), (grey * 16).astype(np.uint16)
    rgb = np.stack([grey8, grey8[::-1], 255 - grey8], axis=2)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "NumberOfFrames": 1}
    window = {"WindowCenter": 900, "WindowWidth": 1500}
    files = {
        "grey.dcm": dicom_file(grey16, BitsStored=12, HighBit=11),
        "hounsfield.dcm": dicom_file(
            (grey * 8 - 900).astype(np.int16), RescaleSlope=1, RescaleIntercept=-100, **window
        ),
        "inverted.dcm": dicom_file(grey8, monochrome="MONOCHROME1"),
        "rgb.dcm": dicom_file(
            rgb.reshape(1, *rgb.shape)[..., 0], monochrome="RGB", PixelData=rgb.tobytes(), **colour
        ),
        "frames.dcm": dicom_file((volume * 16).astype(np.uint16)),
    }

    def again(name: str, change: Any, **options: Any) -> bytes:
        ds = pydicom.dcmread(io.BytesIO(files[name]))
        change(ds)
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True, **options)
        return buffer.getvalue()

    def baseline(ds: Any) -> None:
        ds.PixelData = encapsulate([_saved(Image.fromarray(grey8), "a.jpg", quality=90)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.PhotometricInterpretation = "MONOCHROME2"

    def implicit(ds: Any) -> None:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    files["rle.dcm"] = again("grey.dcm", lambda ds: ds.compress(RLELossless))
    files["rle-frames.dcm"] = again("frames.dcm", lambda ds: ds.compress(RLELossless))
    files["jpeg.dcm"] = again("inverted.dcm", baseline)
    files["implicit.dcm"] = again("grey.dcm", implicit, implicit_vr=True, little_endian=True)
    return files


def _nifti(volume: Any) -> dict[str, bytes]:
    voxels = np.ascontiguousarray(volume.transpose(2, 1, 0))  # [x, y, z]
    affine = np.diag([-0.8, -0.8, 3.0, 1.0])
    affine[:3, 3] = 40, 30, -12
    scaled = nibabel.Nifti1Image((voxels * 100).astype(np.int16), affine)
    scaled.header.set_slope_inter(0.5, -1000)
    colour = np.empty(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for band, shift in zip("RGB", (0, 3, 7), strict=True):
        colour[band] = np.roll(voxels, shift, axis=0)
    files = {
        "volume.nii": scaled.to_bytes(),
        "rgb.nii": nibabel.Nifti1Image(colour, affine).to_bytes(),
        "float.nii": nibabel.Nifti2Image(voxels.astype(np.float32), affine).to_bytes(),
        "plane.nii": nibabel.Nifti1Image(voxels[:, :, 0].astype(np.uint8), affine).to_bytes(),
    }
    return {**files, **{f"{name}.gz": gzipped(files[name]) for name in ("volume.nii", "float.nii")}}


def gzipped(data: bytes) -> bytes:
    """Gzip, the same bytes every time."""
    import gzip

    return gzip.compress(data, 1, mtime=0)
