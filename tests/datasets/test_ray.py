"""Labels made by a job feed training: one image each, on Ray Data and from S3."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.datasets.exports import webdataset
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.pipeline import label


@pytest.fixture(scope="module")
def labelled(local_ray, images, tmp_path_factory):
    from salip_ray import load_config
    from tests.conftest import SMALL

    output = tmp_path_factory.mktemp("fed") / "labels"
    config = load_config("lungs", overrides=[*SMALL, "task.min_area=0", "task.max_area=1"])
    label(images, output, config, quiet=True)
    return output


def test_a_job_writes_what_training_reads(labelled):
    labels = PseudoLabels(str(labelled))
    assert 0 < len(labels) <= 9
    for sample in labels:
        assert sample["labels"].shape == sample["image"].shape[:2]
        assert set(np.unique(sample["labels"])) == {0, 1}
        assert 0 <= sample["confidence"] <= 1


def test_ray_data_gives_the_same_items(labelled):
    labels = PseudoLabels(
        str(labelled), transform=lambda s: {"id": s["image_id"], "n": int(s["labels"].sum())}
    )
    rows = labels.ray_dataset(concurrency=1).take_all()
    assert {row["id"]: row["n"] for row in rows} == {item["id"]: item["n"] for item in labels}


def test_labels_and_exports_on_s3(labelled, s3, tmp_path):
    options = s3.options
    s3.upload(labelled, "datasets/labels")
    labels = PseudoLabels("s3://datasets/labels", storage_options=options)
    here = PseudoLabels(str(labelled))
    np.testing.assert_array_equal(labels[0]["labels"], here[0]["labels"])
    count = webdataset.export(labels, "s3://datasets/wds", storage_options=options)
    assert count == len(here)
    written = s3.download("datasets/wds", tmp_path / "wds")
    assert (written / "train-000000.tar").stat().st_size > 1000
    assert webdataset.export(labels, "s3://datasets/wds", storage_options=options) == count
