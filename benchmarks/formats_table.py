"""Compare the readers of image formats with independent ones, on files that are made here.

Usage:
    pip install tifffile SimpleITK
    python -m benchmarks.formats_table

TIFF files are read by tifffile and OpenCV, NIfTI volumes by nibabel and SimpleITK, and DICOM files
by SimpleITK (GDCM). A row holds the largest difference: of stored values for TIFF, and in grey
levels of 255 under one window for the others (0.5 is rounding). Prints the table and writes it to
``benchmarks/results/formats.md``.
"""

from __future__ import annotations

import importlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom

from salip_ray.config import ImageConfig, Window
from salip_ray.errors import ImageError
from salip_ray.sources.decode import open_stack
from salip_ray.sources.formats.tiff import read_values
from tests.tiff_files import tiff
from tests.unit.sources.formats.test_dicom import make as dicom_file

_ROUNDING = 0.51
RESULT = Path(__file__).parent / "results" / "formats.md"
_DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
#: Why an independent reader differs, by the start of the name of a file and the reader.
_NOTES = {
    ("planes", "OpenCV"): "OpenCV mixes the planes up; tifffile agrees",
    (
        "-bit packed",
        "OpenCV",
    ): "OpenCV scales them to 8 or 16 bits; tests compare with the array",
    (
        "negative pixdim",
        "SimpleITK",
    ): "SimpleITK mirrors; no sign is allowed, nibabel drops it",
    ("no sform", "nibabel"): "nibabel mirrors x as for Analyze; the standard's method 1 does not",
    ("no sform", "SimpleITK"): "SimpleITK mirrors x and y; the standard's method 1 does not",
    ("HighBit 15", "SimpleITK"): "GDCM drops the upper bits; tests compare with the array",
}
_CONFIG = ImageConfig(window=Window(center=300, width=600))
Reader = Callable[[bytes], Any]


@dataclass(frozen=True)
class Row:
    """One comparison; ``outcome`` is the largest difference, or why there is none."""

    family: str
    name: str
    reader: str
    outcome: str


def compared(family: str, name: str, ours: Callable[[], Any], readers: dict[str, Any]) -> list[Row]:
    """Compare a result with those of independent readers."""
    try:
        values = np.asarray(ours(), np.float64)
    except ImageError as error:
        return [Row(family, name, "-", f"refused: {error}")]
    rows = []
    for reader, read in readers.items():
        try:
            theirs = np.asarray(read(), np.float64)
            same = theirs.shape == values.shape
            gap = float(np.nanmax(np.abs(theirs - values))) if same else np.nan
            outcome = f"{gap:.3g}" if same else f"other shape: {theirs.shape}"
            for (part, by), note in _NOTES.items():
                if part in name and by == reader and not gap <= _ROUNDING:
                    outcome += f" ({note})"
        except Exception as error:  # noqa: BLE001  (an independent reader refuses)
            outcome = f"not read by it ({type(error).__name__})"
        rows.append(Row(family, name, reader, outcome))
    return rows


def tiff_rows() -> Iterator[Row]:
    """Compare TIFF files of every sample type and layout."""
    tifffile = importlib.import_module("tifffile")
    rng = np.random.default_rng(0)

    def values(dtype: str, *shape: int) -> Any:
        kind = np.dtype(dtype)
        if kind.kind == "f":
            return rng.normal(0, 1000, shape).astype(kind)
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)

    def both(name: str, data: bytes, planes_first: bool = False) -> list[Row]:
        def by_tifffile() -> Any:
            array = tifffile.imread(io.BytesIO(data), key=0)
            return np.moveaxis(array, 0, -1) if planes_first else array

        def by_opencv() -> Any:
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            return array[..., ::-1] if array.ndim == 3 else array

        readers = {"tifffile": by_tifffile, "OpenCV": by_opencv}
        return compared("TIFF", name, lambda: read_values(data, 0, _CONFIG), readers)

    for dtype in _DTYPES:
        yield from both(f"{dtype} grey, strips", tiff(values(dtype, 40, 50), rows_per_strip=9))
        options = {"compression": 8, "predictor": 3 if dtype[0] == "f" else 2, "tile": 16}
        yield from both(
            f"{dtype} grey, deflated tiles, predictor", tiff(values(dtype, 40, 50), **options)
        )
        colour = values(dtype, 40, 50, 3)
        yield from both(f"{dtype} RGB", tiff(colour, photometric=2))
        yield from both(f"{dtype} RGB planes", tiff(colour, photometric=2, planar=2), True)
    for bits in (1, 2, 4, 10, 12, 14):
        packed = rng.integers(0, 2**bits, (40, 50), np.uint16)
        yield from both(f"{bits}-bit packed grey", tiff(packed, bits=bits))
    yield from both("uint16 big endian", tiff(values("uint16", 40, 50), order=">"))
    yield from both("uint16 BigTIFF", tiff(values("uint16", 40, 50), big=True))
    for name, odd in (
        ("complex64", tiff(np.zeros((4, 4), np.complex64))),
        ("24-bit", tiff(np.zeros((4, 4), np.uint32), bits=24)),
        ("uint16 JPEG 2000", tiff(np.zeros((4, 4), np.uint16), tags={259: (3, [34712])})),
    ):
        yield from both(name, odd)


def body() -> Any:
    """Return a volume whose voxels tell their position, in RAS."""
    x, y, z = np.mgrid[:5, :6, :7]
    return (100 * x + 10 * y + z).astype(np.int16)


def shown(values: Any) -> Any:
    """Return values as grey levels by the window that all comparisons use."""
    return np.clip(np.asarray(values, np.float64) / 600 * 255, 0, 255)


def product(data: bytes, name: str) -> Any:
    """Return all pictures of a file as the product shows them, [index, row, column]."""
    stack = open_stack(data, name, _CONFIG)
    return np.stack([stack.picture(index)[..., 0] for index in range(stack.count)])


def by_simpleitk(data: bytes, suffix: str, orient: bool) -> Any:
    """Return the values of a file as SimpleITK reads it: axial, front up, right on the left."""
    sitk = importlib.import_module("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS") if orient else image)


def by_nibabel(data: bytes) -> Any:
    """Return the values of a NIfTI file as nibabel reads it, axial, front up, right on the left."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data))
    return np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)


def nifti_rows() -> Iterator[Row]:
    """Compare NIfTI volumes with headers of every kind."""

    def qform(header: Any, **fields: Any) -> None:
        header["sform_code"], header["qform_code"] = 0, 1
        header["quatern_b"] = header["quatern_c"] = header["quatern_d"] = 0
        header["pixdim"][:4] = [fields.get("qfac", 1), *fields.get("sizes", (2, 3, 4))]

    def no_codes(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][:4] = [1, 2, 3, 4]

    def turned(header: Any) -> None:
        qform(header)
        header["quatern_c"], header["quatern_d"] = 0.6, 0.8

    def scaled(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0.5, 20

    cases: dict[str, Callable[[Any], None]] = {
        "sform": lambda _: None,
        "qform": qform,
        "qform, oblique by half a turn": turned,
        "qfac -1": lambda header: qform(header, qfac=-1),
        "qfac 0": lambda header: qform(header, qfac=0),
        "negative pixdim": lambda header: qform(header, sizes=(-2, 3, 4)),
        "pixdim 0": lambda header: qform(header, sizes=(2, 3, 0)),
        "no sform or qform code": no_codes,
        "slope and intercept": scaled,
    }
    for name, change in cases.items():
        image = nibabel.Nifti1Image(body(), np.diag([2.0, 3.0, 4.0, 1.0]))
        data = bytearray(image.to_bytes())
        header = image.header.copy()
        header["magic"], header["vox_offset"] = b"n+1", 352
        change(header)
        data[:348] = header.binaryblock
        whole = bytes(data)
        readers = {
            "nibabel": lambda whole=whole: shown(by_nibabel(whole)),
            "SimpleITK": lambda whole=whole: shown(by_simpleitk(whole, ".nii", True)),
        }
        yield from compared("NIfTI", name, lambda whole=whole: product(whole, "a.nii"), readers)


def dicom_rows() -> Iterator[Row]:
    """Compare DICOM files of every layout of values."""
    plain = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    signed = (plain.astype(np.int32) - 2048).astype(np.int16)
    left = (plain << 4).astype(np.uint16)
    rescale = {"RescaleSlope": 0.25, "RescaleIntercept": -100}
    negative = {"RescaleSlope": -0.25, "RescaleIntercept": 600}
    cases = {
        "uint16": dicom_file(plain),
        "uint8": dicom_file((plain % 256).astype(np.uint8)),
        "12 bits of 16": dicom_file(plain, BitsStored=12, HighBit=11),
        "12 bits of 16, signed": dicom_file(signed & 0xFFF, BitsStored=12, HighBit=11),
        "12 bits of 16, HighBit 15": dicom_file(left, BitsStored=12, HighBit=15),
        "rescale": dicom_file(plain, **rescale),
        "rescale, negative slope": dicom_file(plain, **negative),
        "rescale, signed": dicom_file(signed, **rescale),
        "without a preamble": dicom_file(plain)[132:],
        "frames": dicom_file(np.stack([plain, plain[::-1], plain.T])),
    }
    for name, data in cases.items():

        def theirs(data: bytes = data) -> Any:
            values = by_simpleitk(data, ".dcm", False)
            return shown(values if values.ndim == 3 else values[None])

        yield from compared(
            "DICOM", name, lambda data=data: product(data, "a.dcm"), {"SimpleITK": theirs}
        )


def as_markdown(rows: list[Row]) -> str:
    """Return the table, with the largest difference of each family."""
    lines = [
        "# Formats against independent readers",
        "",
        "Made by `python -m benchmarks.formats_table` from files that it writes. TIFF: largest",
        "difference of stored values. NIfTI and DICOM: in grey levels of 255 (0.5 is rounding).",
        f"Versions: OpenCV {cv2.__version__}, nibabel {nibabel.__version__}, "
        f"pydicom {pydicom.__version__}.",
        "",
        "| format | file | independent reader | largest difference |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {row.family} | {row.name} | {row.reader} | {row.outcome} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare all, print the table and write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [*tiff_rows(), *nifti_rows(), *dicom_rows()]
    text = as_markdown(rows)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
