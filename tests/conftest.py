"""Fixtures that several folders share: one Ray for the session, images, and an S3 server."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

#: A grid of 2x2 points on 64 px: every line of the job's code for a fraction of its time.
SMALL = (
    "image.long_side=64",
    "propose.points_per_side=2",
    "propose.pred_iou_thresh=0",
    "propose.stability_score_thresh=0",
    "run.rows_per_shard=4",
    "run.max_error_share=0.5",
    # An actor takes seconds to start; tests about pools say what they need.
    "pools.propose.size=1",
)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray on this machine for the whole session; jobs in this process join it."""
    # Without it, Ray would leave a file with a token in the home directory of whoever runs tests.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(
        address="local",
        num_cpus=6,
        object_store_memory=500_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Nine good images of odd sizes, one that is cut off and one of no bytes."""
    from salip_ray.models.bundled.phantoms import make_phantom

    folder = tmp_path_factory.mktemp("images")
    for index in range(9):
        phantom = make_phantom("chest_xray", index, bank="tune", size=64 + 3 * index)
        cv2.imwrite(str(folder / f"{index}.png"), phantom.image[:, :, ::-1])
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture
def small_config() -> Callable[..., object]:
    from salip_ray import load_config

    def make(*overrides: str) -> object:
        return load_config("lungs", overrides=[*SMALL, *overrides])

    return make


def tree(output: Path) -> dict[str, bytes]:
    """What two runs of one job must have in common, byte for byte."""
    kept = [*output.glob("shards/*"), *output.glob("masks/*"), *output.glob("manifest.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in kept}


def check_exactly_once(output: Path, n_images: int) -> None:
    """Every image of the manifest has one row, and nothing half done lies about."""
    import pyarrow.parquet as pq

    manifest = pq.read_table(output / "manifest.parquet")["image_id"].to_pylist()
    rows = [
        image_id
        for path in sorted(output.glob("shards/*.parquet"))
        for image_id in pq.read_table(path)["image_id"].to_pylist()
    ]
    assert len(manifest) == n_images
    assert sorted(rows) == sorted(manifest)
    names = {path.name for path in output.rglob("*") if path.is_file()}
    assert not [name for name in names if "tmp" in name]


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[tuple[Path, dict[str, object]]]:
    """A real S3 server that checks signatures: the folder it serves, and its storage options."""
    folder = tmp_path_factory.mktemp("s3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key, secret = "access", "not-so-secret"
    log = (folder.parent / "rclone.log").open("wb")
    server = subprocess.Popen(
        [
            *(BIN / "rclone", "serve", "s3", folder, "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{key},{secret}", "--vfs-cache-mode", "off", "--config", os.devnull),
            # Tests put files into the folder behind its back. With 0s rclone spins for ever.
            *("--dir-cache-time", "1ms"),
        ],
        stdout=log,
        stderr=log,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield folder, {"key": key, "secret": secret, "endpoint_url": f"http://127.0.0.1:{port}"}
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()
