"""Commands that make an output from outputs, or write into one, on a real S3 server."""

from __future__ import annotations

import cv2
import numpy as np
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.consensus.job import make_consensus
from salip_ray.output.layout import CALIBRATION
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify import verify
from tests.conftest import tree
from tests.unit.consensus.runs import block, write_run

NAMES = [f"{n:02d}.png" for n in range(12)]


def test_a_consensus_and_its_calibration_from_bucket_to_bucket(s3, tmp_path):
    runs = []
    for name, bottom in (("one", 4), ("two", 5)):
        images = {n: {"lungs": block((0, bottom), (0, 3 + i % 4))} for i, n in enumerate(NAMES)}
        given = {n: 0.5 + i / 40 for i, n in enumerate(NAMES)}
        runs.append(write_run(tmp_path / name, images, per_shard=5, confidences=given))
        s3.upload(runs[-1], f"bucket/{name}")
    remote = ["s3://bucket/one", "s3://bucket/two"]
    options = {"run_options": s3.options, "output_options": s3.options, "quiet": True}
    assert make_consensus(remote, "s3://bucket/agreed", **options).status == {"ok": 12}
    assert make_consensus(remote, "s3://bucket/agreed", **options).images_in_run == 0
    written = s3.download("bucket/agreed", tmp_path / "agreed")
    make_consensus(list(map(str, runs)), str(tmp_path / "here"), quiet=True)
    assert tree(written / "shards") == tree(tmp_path / "here" / "shards")
    assert verify("s3://bucket/agreed", s3.options).problems == ()
    secret = s3.secret.encode()
    assert not [p for p in written.rglob("*") if p.is_file() and secret in p.read_bytes()]

    (tmp_path / "masks").mkdir()
    for n in NAMES:
        cv2.imwrite(str(tmp_path / "masks" / n), block((0, 4)).astype(np.uint8))
    s3.upload(tmp_path / "masks", "bucket/masks")
    words = ["calibrate", "s3://bucket/one", "s3://bucket/masks"]
    for name, value in s3.options.items():
        if isinstance(value, str):
            words += ["--labels-option", f"{name}={value}", "--reference-option", f"{name}={value}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert LabelOutput.open("s3://bucket/one", s3.options).calibrated_on
    content = s3.download("bucket/one", tmp_path / "calibrated") / CALIBRATION
    assert secret not in content.read_bytes()
