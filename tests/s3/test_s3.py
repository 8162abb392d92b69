"""Reading from and writing to a real S3 server that checks signatures."""

from __future__ import annotations

import shutil

import pytest
import s3fs

from salip_ray import label, load_config
from salip_ray.errors import SalipError
from salip_ray.output.reader import LabelOutput
from tests.conftest import SMALL, check_exactly_once, tree

pytestmark = pytest.mark.usefixtures("local_ray")


def config(options):
    return load_config(
        "lungs", overrides={"storage": {"input": options, "output": options}}
    ).model_copy(update=_small())


def _small():
    return {
        name: getattr(load_config("lungs", overrides=SMALL), name)
        for name in ("image", "propose", "run", "pools")
    }


def test_bucket_to_bucket_gives_the_bytes_of_a_local_run(s3, images, tmp_path):
    served, options = s3
    shutil.copytree(images, served / "bucket" / "in")
    settings = config(options)

    label("s3://bucket/in", "s3://bucket/out", settings, quiet=True)

    written = served / "bucket" / "out"
    check_exactly_once(written, 11)
    label("s3://bucket/in", "s3://bucket/out2", settings, quiet=True)
    assert tree(served / "bucket" / "out2") == tree(written)
    read = LabelOutput.open("s3://bucket/out", options)
    assert sum(1 for _ in read.rows()) == 11
    secret = str(options["secret"]).encode()
    assert not [p for p in written.rglob("*") if p.is_file() and secret in p.read_bytes()]


def test_a_lost_object_is_made_again(s3, images):
    served, options = s3
    if not (served / "bucket" / "in").exists():
        shutil.copytree(images, served / "bucket" / "in")
    label("s3://bucket/in", "s3://bucket/lost", config(options), quiet=True)
    before = tree(served / "bucket" / "lost")
    # Through the server: it would not notice a file gone behind its back.
    s3fs.S3FileSystem(**options).rm("bucket/lost/shards/part-00002.parquet")
    label("s3://bucket/in", "s3://bucket/lost", config(options), quiet=True)
    assert tree(served / "bucket" / "lost") == before


def test_a_wrong_secret_is_one_line_without_it(s3):
    options = {**s3[1], "secret": "wrong-secret"}
    with pytest.raises(SalipError) as caught:
        label("s3://bucket/in", "s3://bucket/never", config(options), quiet=True)
    assert "wrong-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
