"""Jobs from bucket to bucket on a real S3 server that checks signatures."""

from __future__ import annotations

import pytest

from salip_ray import label, load_config
from salip_ray.errors import SalipError
from salip_ray.output.reader import LabelOutput
from tests.conftest import SMALL, check_exactly_once, tree

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def bucket(s3, images):
    """A server with images in ``s3://bucket/in``."""
    s3.upload(images, "bucket/in")
    return s3


def label_bucket(output, options):
    config = load_config("lungs", overrides=SMALL)
    storage = config.storage.model_copy(update={"input": options, "output": options})
    config = config.model_copy(update={"storage": storage})
    label("s3://bucket/in", f"s3://bucket/{output}", config, quiet=True)


def test_a_resumed_job_restores_a_lost_object_and_writes_no_secret(bucket, tmp_path):
    label_bucket("out", bucket.options)
    written = bucket.download("bucket/out", tmp_path / "out")
    check_exactly_once(written, 11)
    assert sum(1 for _ in LabelOutput.open("s3://bucket/out", bucket.options).rows()) == 11
    secret = bucket.secret.encode()
    assert not [p for p in written.rglob("*") if p.is_file() and secret in p.read_bytes()]

    bucket.delete("bucket/out/shards/part-00002.parquet")
    label_bucket("out", bucket.options)
    assert tree(bucket.download("bucket/out", tmp_path / "resumed")) == tree(written)


def test_a_wrong_secret_is_reported_in_one_line_without_the_secret(bucket):
    with pytest.raises(SalipError) as caught:
        label_bucket("never", {**bucket.options, "secret": "wrong-secret"})
    assert "wrong-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
