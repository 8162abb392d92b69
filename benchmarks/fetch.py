"""Which client fetches small objects soonest, and which decoder gives Pillow's pixels soonest.

    python -m benchmarks.fetch

Objects come from a real S3 server on this machine (``rclone serve s3``, signatures checked), so the
figures compare clients; they say nothing of a network. Each client keeps 1, 8 and 32 requests under
way; rounds take turns. Decoders decode phantoms saved as JPEG and PNG; one that gives other pixels
than Pillow cannot take its place, however fast it is. Packages that are not installed are left out.
Writes ``benchmarks/results/fetch.json``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.bench import RESULTS
from benchmarks.measure import machine
from salip_ray.models.bundled.phantoms import KINDS, make_phantom

CONCURRENCIES = (1, 8, 32)
SIZES = {"100 kB": (100_000, 320), "4 MB": (4_000_000, 24)}  #: bytes of an object, and how many
Fetch = Callable[[list[str], int], list[bytes]]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each client.")] = 3,
    output: Annotated[Path, typer.Option(help="Where the results are written.")] = RESULTS,
) -> None:
    """Measure, print and write."""
    result: dict[str, Any] = {"machine": machine(torch.device("cpu"))}
    with tempfile.TemporaryDirectory() as folder:
        stored = {size: store(Path(folder), size) for size in SIZES}
        with s3_server(Path(folder)) as options:
            result["fetch"] = {size: fetching(stored[size], options, rounds) for size in SIZES}
    result["decode"] = {suffix: decoding(suffix, rounds) for suffix in (".jpg", ".png")}
    output.mkdir(parents=True, exist_ok=True)
    (output / "fetch.json").write_text(json.dumps(result, indent=2) + "\n")
    for size, clients in result["fetch"].items():
        for name, rates in clients.items():
            text = ", ".join(f"{rate['objects_per_s']:.0f} at {n}" for n, rate in rates.items())
            print(f"{size:7} {name:11} objects/s: {text}")
    for suffix, decoders in result["decode"].items():
        for name, results in decoders.items():
            same = "Pillow's pixels" if results["same"] else "OTHER pixels"
            print(f"{suffix:7} {name:10} {results['ms']:6.2f} ms an image, {same}")


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a folder with a local S3 server; yield its key, secret and endpoint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key, secret = "bench", secrets.token_hex(8)
    server = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("rclone"), "serve", "s3", folder),
            *("--addr", f"127.0.0.1:{port}", "--auth-key", f"{key},{secret}"),
            *("--vfs-cache-mode", "off", "--config", os.devnull),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield {"key": key, "secret": secret, "endpoint": f"127.0.0.1:{port}"}
    finally:
        server.terminate()
        server.wait(timeout=20)


def clients(options: dict[str, str]) -> dict[str, Fetch]:
    """Client -> a function of (``bucket/key`` paths, requests under way)."""
    import pyarrow.fs
    import s3fs

    key, secret, endpoint = options["key"], options["secret"], options["endpoint"]
    by_s3fs = s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=f"http://{endpoint}")
    by_arrow = pyarrow.fs.S3FileSystem(
        access_key=key,
        secret_key=secret,
        endpoint_override=endpoint,
        scheme="http",
        region="us-east-1",
    )

    def arrow_read(path: str) -> bytes:
        with by_arrow.open_input_stream(path) as stream:
            return bytes(stream.readall())

    def arrow(paths: list[str], under_way: int) -> list[bytes]:
        with ThreadPoolExecutor(under_way) as pool:
            return list(pool.map(arrow_read, paths))

    results: dict[str, Fetch] = {
        "s3fs": lambda paths, n: list(by_s3fs.cat(paths, batch_size=n).values()),
        # Told not to cut objects into ranges, it need not ask for their size first.
        "s3fs, whole": lambda paths, n: list(
            by_s3fs.cat(paths, batch_size=n, max_concurrency=1).values()
        ),
        "pyarrow": arrow,
    }
    if importlib.util.find_spec("obstore"):
        from obstore.fsspec import FsspecStore

        store: Any = FsspecStore(
            "s3",
            access_key_id=key,
            secret_access_key=secret,
            endpoint=f"http://{endpoint}",
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        results["obstore"] = lambda paths, n: list(store.cat(paths, batch_size=n).values())
    return results


def store(folder: Path, size: str) -> list[str]:
    """Write the objects of one size into a separate bucket; return their ``bucket/key`` paths."""
    n_bytes, count = SIZES[size]
    bucket = folder / f"bucket-{n_bytes}"
    bucket.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        (bucket / f"{index:04d}.bin").write_bytes(rng.bytes(n_bytes))
    return [f"{bucket.name}/{index:04d}.bin" for index in range(count)]


def fetching(
    paths: list[str], options: dict[str, str], rounds: int
) -> dict[str, dict[int, dict[str, float]]]:
    """Median objects/s and MB/s by client and number of requests under way."""
    opened = clients(options)
    n_bytes = sum(map(len, opened["pyarrow"](paths, 8))) / len(paths)
    spent: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for under_way in CONCURRENCIES:
            for name, fetch in opened.items():
                fetch(paths[:2], under_way)  # opens connections
                began = time.perf_counter()
                got = fetch(paths, under_way)
                spent.setdefault((name, under_way), []).append(time.perf_counter() - began)
                if sum(map(len, got)) != n_bytes * len(paths):
                    raise RuntimeError(f"{name} gave other bytes than were stored")
    rates: dict[str, dict[int, dict[str, float]]] = {}
    for (name, under_way), seconds in spent.items():
        per_s = len(paths) / statistics.median(seconds)
        rates.setdefault(name, {})[under_way] = {
            "objects_per_s": round(per_s, 1),
            "mb_per_s": round(per_s * n_bytes / 1e6, 1),
        }
    return rates


def decoders(suffix: str) -> dict[str, Callable[[bytes], Any]]:
    """Return functions from a file's bytes to RGB pixels, by the name of the decoder."""

    def pillow(data: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def opencv(data: bytes) -> Any:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    results = {"pillow": pillow, "opencv": opencv}
    if suffix == ".jpg" and importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        results["simplejpeg"] = simplejpeg.decode_jpeg
    return results


def decoding(suffix: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Median milliseconds an image of 1024 px by decoder, and whether the pixels are Pillow's."""
    files = []
    for index in range(12):
        image = make_phantom(KINDS[index % len(KINDS)], index, bank="tune").image
        large = cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        files.append(cv2.imencode(suffix, large)[1].tobytes())
    results: dict[str, dict[str, Any]] = {}
    truth = [decoders(suffix)["pillow"](data) for data in files]
    for name, decode in decoders(suffix).items():
        spent = []
        for _ in range(rounds):
            for data in files:
                began = time.perf_counter()
                decode(data)
                spent.append(time.perf_counter() - began)
        same = all(np.array_equal(decode(d), t) for d, t in zip(files, truth, strict=True))
        results[name] = {"ms": round(1000 * statistics.median(spent), 3), "same": same}
    return results


if __name__ == "__main__":
    typer.run(main)
