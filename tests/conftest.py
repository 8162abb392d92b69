"""Fixtures for several folders: one Ray for the session, images, and an S3 server."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from hypothesis import HealthCheck, settings

from tests.s3_server import S3Server

# Ray's workers have the lowest priority otherwise, and starve next to anything else on the machine.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)

# A busy machine is no fault of the code: no example has a deadline, and inputs may take their time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

#: A grid of 2x2 points on 64 px runs every line of the job's code in a fraction of its time.
SMALL = (
    "image.long_side=64",
    "propose.points_per_side=2",
    "propose.pred_iou_thresh=0",
    "propose.stability_score_thresh=0",
    "task.min_confidence=0",  # labels of so few points are poor, and tests need labels
    "run.rows_per_shard=4",
    "run.max_error_share=0.5",
    # An actor takes seconds to start. Tests of pools set other sizes.
    "pools.propose.size=1",
)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Start one Ray on this machine for the whole session; jobs in this process join it."""
    # Without a token, Ray would write one into the home directory of the user.
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
    """Draw nine good images of odd sizes, one that is cut off and one that is empty."""
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
    """Return a function that makes a small configuration with more overrides."""
    from salip_ray import load_config

    def make(*overrides: str) -> object:
        return load_config("lungs", overrides=[*SMALL, *overrides])

    return make


def tree(output: Path) -> dict[str, bytes]:
    """Return the files that two runs of one job must share byte for byte, by relative path."""
    paths = [*output.glob("shards/*"), *output.glob("masks/*"), *output.glob("manifest.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def check_exactly_once(output: Path, n_images: int) -> None:
    """Check that every image of the manifest has one row, and that no temporary file is left."""
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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread in torch: several on a busy machine mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3Server]:
    """An S3 server without buckets."""
    folder = tmp_path_factory.mktemp("s3")
    server = S3Server(folder, folder.with_suffix(".log"))
    yield server
    server.kill()
