"""Files that lie: mutated images of every kind that is decoded, and what must become of each.

A mutated file is an ``error`` row with a reason or a row with pixels; never an exception, a crash
or a hang. Among them go files that nothing was done to, and files with a harmless addition (bytes
behind the end, a text chunk, another suffix): those must give the pixels of the original.
"""

from __future__ import annotations

import io
import multiprocessing
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from salip_ray.config import Config, load_config
from salip_ray.pipeline.decoding import fetch_and_decode
from salip_ray.pipeline.monitor import Reporter
from salip_ray.pipeline.plan import TODO_SCHEMA
from tests.conftest import SMALL

_HANG = 60.0  # seconds for a handful of small files


@dataclass(frozen=True)
class Sample:
    """A file to decode: its name, its bytes, and whether it must give the original's pixels."""

    name: str
    data: bytes
    kind: str  # of mutation; "control" and "harmless ..." must give the original's pixels
    original: str

    @property
    def must_decode(self) -> bool:
        """Whether nothing that matters was changed."""
        return self.kind == "control" or self.kind.startswith("harmless")


@cache
def originals() -> dict[str, bytes]:
    """Small good files: every format, depth and layout that is decoded."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    grey = (120 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5) + rng.normal(0, 4, (48, 40))).clip(0, 255)
    grey8 = grey.astype(np.uint8)
    rgb = np.stack([grey8, grey8[::-1], 255 - grey8], axis=2)
    grey16 = (grey * 200).astype(np.uint16)
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
    files = {}
    for name, (pixels, options) in pictures.items():
        buffer = io.BytesIO()
        kinds = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
        kind = kinds.get(name.rpartition(".")[2], "TIFF")
        Image.fromarray(pixels).save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(rgb).quantize(16).save(buffer, "PNG")
    files["palette.png"] = buffer.getvalue()
    return files


# ------------------------------------------------------------------------------- mutations


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _lose(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 200)]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 200)]
    return data


def _zero(data: bytearray, rng: random.Random) -> bytearray:
    start, length = rng.randrange(len(data)), rng.randrange(1, 64)
    data[start : start + length] = bytes(len(data[start : start + length]))
    return data


def _extreme(data: bytearray, rng: random.Random) -> bytearray:
    """A length or a size of the header as large as it can be."""
    start = rng.randrange(min(len(data) - 4, 80))
    data[start : start + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
    return data


def _huge_png(data: bytearray, rng: random.Random) -> bytearray:
    """A PNG that says it is enormous, its checksum right: a decompression bomb."""
    if data[:4] != b"\x89PNG":
        return _extreme(data, rng)
    size = struct.pack(">II", rng.choice([1 << 30, 100_000]), rng.choice([1 << 30, 100_000]))
    header = b"IHDR" + size + bytes(data[24:29])
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return data


def _splice(data: bytearray, rng: random.Random) -> bytearray:
    other = rng.choice(list(originals().values()))
    return data[: rng.randrange(len(data))] + bytearray(other[rng.randrange(len(other)) :])


def _noise(data: bytearray, rng: random.Random) -> bytearray:
    return bytearray(rng.randbytes(rng.randrange(0, 300)))


def _mostly_noise(data: bytearray, rng: random.Random) -> bytearray:
    return data[:16] + bytearray(rng.randbytes(rng.randrange(0, 300)))


MUTATIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flip": _flip,
    "cut": _cut,
    "lose": _lose,
    "repeat": _repeat,
    "zero": _zero,
    "extreme": _extreme,
    "huge": _huge_png,
    "splice": _splice,
    "noise": _noise,
    "mostly noise": _mostly_noise,
}


def _trailing(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    return name, data + rng.randbytes(rng.randrange(1, 40))


def _comment(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A text chunk or comment segment where the format has one, else trailing bytes."""
    text = bytes(rng.randrange(97, 123) for _ in range(20))
    if name.endswith(".png"):
        chunk = b"tEXt" + b"Comment\0" + text
        packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return name, data[:33] + packed + data[33:]
    if name.endswith((".jpg", ".jpeg")):
        return name, data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]
    return _trailing(name, data, rng)


def _other_suffix(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    stem = name.rpartition(".")[0]
    return f"{stem}.{rng.choice(['png', 'jpg', 'tif', 'webp'])}", data


HARMLESS = {"trailing": _trailing, "comment": _comment, "suffix": _other_suffix}


def mutate(rng: random.Random) -> Sample:
    """A file: one in ten as it was, one in ten harmlessly changed, the rest mutated."""
    name = rng.choice(sorted(originals()))
    data = originals()[name]
    chance = rng.random()
    if chance < 0.1:
        return Sample(name, data, "control", name)
    if chance < 0.2:
        kind = rng.choice(sorted(HARMLESS))
        changed, more = HARMLESS[kind](name, data, rng)
        return Sample(changed, more, f"harmless {kind}", name)
    kind = rng.choice(sorted(MUTATIONS))
    mutated = bytes(MUTATIONS[kind](bytearray(data), rng))
    return Sample(name, mutated, kind, name)


# ------------------------------------------------------------------------------- decoding


@cache
def config() -> Config:
    """That of every job here, with limits that small files do not reach and bombs do."""
    return load_config("lungs", overrides=[*SMALL, "image.max_pixels=4000000"])


def rows_of(files: list[Path]) -> list[dict[str, Any]]:
    """The rows that the job's own fetch and decode stage makes of files, pixels as bytes."""
    import pyarrow as pa

    todo = [
        {"image_id": f"{index:032x}", "uri": str(path), "shard": 0, "seq": index}
        for index, path in enumerate(files)
    ]
    batch = pa.Table.from_pylist(todo, schema=TODO_SCHEMA)
    rows = []
    for table in fetch_and_decode(batch, config(), None, Reporter()):
        (row,) = table.select(["status", "error", "height", "width", "_working"]).to_pylist()
        rows.append(row)
    return rows


def fault_of(sample: Sample, row: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """What is wrong with what became of a file, or None."""
    if row["status"] == "error":
        error = row["error"]
        if not error or not error["message"] or not error["type"] or not error["stage"]:
            return "an error row without a reason"
        return f"refused: {error['message']}" if sample.must_decode else None
    if row["status"] != "ok" or not row["height"] or not row["width"] or not row["_working"]:
        return f"neither an error nor pixels: {row['status']}"
    if sample.must_decode and row["_working"] != expected["_working"]:
        return "other pixels than the original's"
    return None


def decode_together(samples: list[Sample], folder: str) -> list[str | None]:
    """Decode files as the job does; the fault of each."""
    paths = []
    names = sorted({sample.original for sample in samples})
    for index, (name, data) in enumerate(
        [(sample.name, sample.data) for sample in samples]
        + [(name, originals()[name]) for name in names]
    ):
        path = Path(folder, f"{multiprocessing.current_process().pid}-{index}-{name}")
        path.write_bytes(data)
        paths.append(path)
    rows = rows_of(paths)
    for path in paths:
        path.unlink()
    expected = dict(zip(names, rows[len(samples) :], strict=True))
    return [
        fault_of(sample, row, expected[sample.original])
        for sample, row in zip(samples, rows, strict=False)
    ]


@dataclass
class Fuzzed:
    """What a fuzz run saw: files, by kind of mutation, and those that broke the promise."""

    files: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fuzz(
    files: int, seed: int, folder: Path, *, out_of_time: Callable[[], bool] = lambda: False
) -> Fuzzed:
    """Decode many mutated files, in a process of their own that may crash or hang."""
    folder.mkdir(parents=True, exist_ok=True)
    found, rng = Fuzzed(), random.Random(seed)
    for group in _groups(files, rng):
        if out_of_time():
            break
        found.files += len(group)
        found.kinds.update(sample.kind for sample in group)
        for sample, fault in zip(group, _decoded_apart(group, folder), strict=True):
            if fault is not None:
                path = folder / f"fault-{seed}-{len(found.faults)}-{sample.name}"
                path.write_bytes(sample.data)
                found.faults.append(f"{path.name} ({sample.kind}): {fault}")
    _stop_pool()
    return found


def _groups(files: int, rng: random.Random) -> Iterator[list[Sample]]:
    for start in range(0, files, 50):
        yield [mutate(rng) for _ in range(min(50, files - start))]


_pool: list[ProcessPoolExecutor] = []


def _decoded_apart(group: list[Sample], folder: Path) -> list[str | None]:
    """In another process; where that crashes or hangs, one by one to find the file."""
    if not _pool:
        _pool.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
    try:
        return _pool[0].submit(decode_together, group, str(folder)).result(timeout=_HANG)
    except Exception as problem:  # noqa: BLE001  (a broken pool, a time-out, a bug)
        _stop_pool()
        if len(group) == 1:
            return [f"{type(problem).__name__}: {problem}"]
        return [fault for sample in group for fault in _decoded_apart([sample], folder)]


def _stop_pool() -> None:
    while _pool:
        pool = _pool.pop()
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
