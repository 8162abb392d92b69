"""The memory that decompression bombs take: ``make formats``.

Each file is small and claims or unpacks to hundreds of megabytes. A fresh process opens it as the
job does, with the default limits, and measures how much its resident memory grows at most. Prints a
table and writes it to ``benchmarks/results/bombs.md``. Linux only.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import pydicom
import typer
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "bombs.md"
_SIDE = 30_000  # 900 million pixels, above image.max_pixels
_LARGEST = 17_000  # 289 million pixels, below it
_ZEROS = 300_000_000
_MIB = 1024**2


@dataclass(frozen=True)
class Bomb:
    """A file: its name, what it would unpack to in bytes, and how it is made."""

    name: str
    title: str
    unpacked: int
    make: Callable[[], bytes]


def png(side: int) -> bytes:
    """Return a black grey PNG of ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    stream = zlib.compressobj(9)
    rows = bytes(side + 1)
    pixels = b"".join(stream.compress(rows) for _ in range(side)) + stream.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpeg(side: int) -> bytes:
    """Return a small JPEG whose header claims ``side`` x ``side`` pixels."""
    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def _dicom() -> pydicom.Dataset:
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3"
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = np.arange(64 * 64, dtype=np.uint8).tobytes()
    return ds


def _saved(ds: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deflated_dicom() -> bytes:
    """Return a deflated DICOM file with zeros in a private element after its pixels."""
    ds = _dicom()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = _saved(ds)
    at = 132 + 12 + int.from_bytes(whole[140:144], "little")  # behind the meta header
    private = struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, _ZEROS)
    stream = zlib.compressobj(9, wbits=-15)
    body = stream.compress(zlib.decompress(whole[at:], wbits=-15) + private)
    return whole[:at] + body + stream.compress(bytes(_ZEROS)) + stream.flush()


def jpeg_2000() -> bytes:
    """Return a DICOM file of 64 x 64 pixels whose codestream claims many more."""
    ds = _dicom()
    sides = struct.pack(">8I", _SIDE, _SIDE, 0, 0, _SIDE, _SIDE, 0, 0)
    head = b"\xff\x4f\xff\x51\0\x29\0\0" + sides + b"\0\1\7\1\1"
    ds.PixelData = encapsulate([head + bytes(1000)])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return _saved(ds)


def nifti() -> bytes:
    """Return a small volume in gzip, with zeros after it."""
    voxels = np.arange(64 * 64, dtype=np.int16).reshape(64, 64, 1)
    volume = nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()
    return gzip.compress(volume + bytes(_ZEROS), 9, mtime=0)


def tiff() -> bytes:
    """Return a TIFF of 4 x 4 pixels whose only strip inflates to much more."""
    strip = zlib.compress(bytes(_ZEROS), 9)
    tags = [(256, 4), (257, 4), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, 4)]
    tags.append((279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


BOMBS = (
    Bomb("bomb.png", f"PNG of {_SIDE:,} x {_SIDE:,} pixels", _SIDE**2, lambda: png(_SIDE)),
    Bomb("bomb.jpg", "JPEG that claims 60,000 x 60,000 pixels", 60_000**2, lambda: jpeg(60_000)),
    Bomb("bomb.dcm", "deflated DICOM, zeros after the pixels", _ZEROS, deflated_dicom),
    Bomb("stream.dcm", "DICOM, JPEG 2000 larger than its rows", _SIDE**2, jpeg_2000),
    Bomb("bomb.nii.gz", "NIfTI in gzip, zeros after the voxels", _ZEROS, nifti),
    Bomb("bomb.tif", "TIFF of 4 x 4 pixels, strip of zeros", _ZEROS, tiff),
    Bomb(
        "largest.png",
        f"no bomb: PNG of {_LARGEST:,} x {_LARGEST:,} pixels",
        _LARGEST**2,
        lambda: png(_LARGEST),
    ),
)

_OPEN = """
import json, sys
from pathlib import Path
from salip_ray.cascade.geometry import make_working
from salip_ray.config import ImageConfig
from salip_ray.errors import ImageError
from salip_ray.sources.decode import decode
from salip_ray.sources.headers import read_header

def memory(field):
    (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field)]
    return int(line.split()[1]) / 1024

config = ImageConfig()
decode(Path(sys.argv[2]).read_bytes(), sys.argv[2], config)  # loads the decoders
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
try:
    read_header(sys.argv[1], config)
    image = decode(Path(sys.argv[1]).read_bytes(), sys.argv[1], config)
    outcome = f"{image.shape[1]:,} x {image.shape[0]:,} pixels"
    make_working(image, config)
except ImageError as error:
    outcome = f"error row: {error}"
print(json.dumps({"outcome": outcome, "mib": memory("VmHWM") - before}))
"""


@dataclass(frozen=True)
class Measured:
    """The result of opening one file: its size, the outcome, and the growth of memory in MiB."""

    bomb: Bomb
    size: int
    outcome: str
    mib: float


def measure(bomb: Bomb, folder: Path) -> Measured:
    """Open a bomb in a fresh process, after a good file of its kind."""
    path, good = folder / bomb.name, folder / f"good-{bomb.name}"
    path.write_bytes(bomb.make())
    good.write_bytes(_good(bomb.name))
    command = [sys.executable, "-c", _OPEN, str(path), str(good)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return Measured(bomb, path.stat().st_size, answer["outcome"], answer["mib"])


def _good(name: str) -> bytes:
    if name.endswith(".dcm"):
        return _saved(_dicom())
    if name.endswith(".nii.gz"):
        voxels = np.arange(64, dtype=np.int16).reshape(8, 8, 1)
        return gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes())
    buffer = io.BytesIO()
    kind = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[name.rpartition(".")[2]]
    Image.new("L", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def table(rows: list[Measured]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| file | size | unpacked | outcome | memory |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| {row.bomb.title} | {row.size / 1e3:,.0f} kB | {row.bomb.unpacked / 1e6:,.0f} MB "
        f"| {row.outcome} | {row.mib:,.0f} MiB |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(
    output: Annotated[Path, typer.Option(help="Where the table is written.")] = RESULT,
) -> None:
    """Measure the memory of each bomb."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(bomb, Path(folder)) for bomb in BOMBS]
    text = table(rows)
    output.write_text(f"# Memory of decompression bombs\n\n{text}\nWritten by `make formats`.\n")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
