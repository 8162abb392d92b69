"""What becomes of pydicom's own test files with pixels: ``make formats``.

Each is read as the job reads it, and the last frame compared with pydicom's own array, brought to
8 bits by pydicom's own look-up tables and windows. Prints a table of all files by outcome and
writes it to ``benchmarks/results/dicom.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pydicom
import typer
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.decode import open_stack

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
RESULT = Path(__file__).parent / "results" / "dicom.md"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Outcome:
    """One file; ``reason`` is that of a file that cannot be read, ``worst`` the largest error."""

    name: str
    syntax: str
    kind: str
    frames: int
    worst: float = 0.0
    reason: str = ""


def files_with_pixels() -> Iterator[Path]:
    """Yield the DICOM files that come with pydicom and hold pixels, whatever their names."""
    for path in sorted(FILES.rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".dcm" or data[128:132] == b"DICM":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if any(name in pydicom.dcmread(path, force=True) for name in _PIXELS):
                    yield path


def frame_count(ds: pydicom.Dataset) -> int:
    """How many frames a data set has."""
    return int(ds.get("NumberOfFrames") or 1)


def pydicoms_own(ds: pydicom.Dataset, index: int) -> npt.NDArray[Any]:
    """Return a frame as pydicom shows it, stretched to 0..255: [H, W] or [H, W, 3]."""
    array = np.asarray(pixel_array(ds, index=index))
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(array, ds)[..., :3]
        return colours / (256.0**colours.dtype.itemsize - 1) * 255
    if array.ndim == 3:
        return array / (2.0 ** int(ds.BitsStored) - 1) * 255
    values = np.asarray(apply_modality_lut(array, ds), np.float64)
    if ds.get("WindowCenter") is not None or ds.get("VOILUTSequence"):
        ends = apply_voi_lut(np.array([-1e12, 1e12]), ds)
        values = apply_voi_lut(values, ds)
        low, high = float(ends.min()), float(ends.max())
    elif int(ds.BitsStored) <= 8:
        low, high = 0.0, 2.0 ** int(ds.BitsStored) - 1
    else:
        frames = range(frame_count(ds))
        used = np.stack([apply_modality_lut(pixel_array(ds, index=i), ds) for i in frames])
        padding = ds.get("PixelPaddingValue")
        used = used[used != padding] if isinstance(padding, int) else used
        low, high = np.percentile(used.astype(np.float64), (0.5, 99.5))
        if low == high:
            low, high = used.min(), used.max()
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    return 255 - scaled if ds.PhotometricInterpretation == "MONOCHROME1" else scaled


def outcome_of(path: Path) -> Outcome:
    """Read a file as the job does, and compare its last frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path, force=True)
        syntax = getattr(ds.file_meta, "TransferSyntaxUID", None)
        kind = f"{ds.get('PhotometricInterpretation', '-')}, {ds.get('BitsStored', '-')} bit"
        name = path.relative_to(FILES).as_posix()
        about = (name, "-" if syntax is None else syntax.name)
        try:
            stack = open_stack(path.read_bytes(), path.name, ImageConfig())
            pixels = stack.picture(stack.count - 1).astype(np.float64)
        except ImageError as error:
            return Outcome(*about, kind, 0, reason=str(error))
        wanted = pydicoms_own(ds, stack.count - 1)
        shown = pixels if wanted.ndim == 3 else pixels[..., 0]
        return Outcome(*about, kind, stack.count, worst=float(np.abs(shown - wanted).max()))


def as_markdown(outcomes: list[Outcome]) -> str:
    """Return the table, with its totals."""
    read = [each for each in outcomes if not each.reason]
    exact = sum(each.worst <= 1 for each in read)
    lines = [
        f"# pydicom {pydicom.__version__}'s own files with pixels",
        "",
        f"{len(read)} of {len(outcomes)} decode; {exact} of those are within one grey level of 255 "
        "of pydicom's own arrays. The others are error rows that name the reason.",
        "",
        "| file | transfer syntax | pixels | frames | outcome |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in sorted(outcomes, key=lambda each: (not each.reason, each.name)):
        description = each.reason.replace("|", "/") or f"decodes, off by {each.worst:.2f} at most"
        frames = each.frames or "-"
        lines.append(f"| {each.name} | {each.syntax} | {each.kind} | {frames} | {description} |")
    return "\n".join(lines) + "\n"


def main(
    result: Annotated[Path, typer.Option(help="Where the table is written.")] = RESULT,
) -> None:
    """Read all of them, print the table and write it."""
    text = as_markdown([outcome_of(path) for path in files_with_pixels()])
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
