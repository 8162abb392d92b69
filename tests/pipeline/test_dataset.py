"""Labels as columns of a Ray Data pipeline of the user."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from salip_ray import Cascade, label_dataset
from salip_ray.errors import InputError, ModelError, ResourceError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output.masks import decode_rle
from tests.conftest import SMALL
from tests.unit.pipeline.workers.test_model_check import Raises

pytestmark = pytest.mark.usefixtures("local_ray")


def test_rows_keep_their_columns_and_get_the_cascades_labels(small_config):
    import ray

    config = small_config()
    pictures = [make_phantom("chest_xray", i, bank="tune", size=64).image for i in range(3)]
    items = [{"case": i, "image": picture} for i, picture in enumerate(pictures)]
    items.append({"case": 3, "image": np.zeros((8, 8, 3), np.uint8)})
    rows = label_dataset(ray.data.from_items(items), config).take_all()
    assert sorted(row["case"] for row in rows) == [0, 1, 2, 3]
    cascade = Cascade(config, device="cpu")
    for row in rows:
        expected = cascade(items[row["case"]]["image"])
        assert len(row["masks"]) == len(expected.masks)
        for mask, wanted in zip(row["masks"], expected.masks, strict=True):
            np.testing.assert_array_equal(decode_rle(mask["rle"]), wanted.mask)
            assert list(mask["candidate_ids"]) == list(wanted.candidate_ids)
        by_id = {candidate.id: candidate for candidate in expected.candidates}
        picks = [(s.candidate_id, True, s.clip.score) for s in expected.selections]
        picks += [
            (r.candidate_id, False, r.score) for s in expected.selections for r in s.runners_up
        ]
        assert [
            (item["candidate_id"], item["retrieved"], tuple(item["box"])) for item in row["ranking"]
        ] == [(number, retrieved, by_id[number].box) for number, retrieved, _ in picks]
        # The actor computes with other threads than this process: the last bits may differ.
        scores = [item["clip_score"] for item in row["ranking"]]
        assert scores == pytest.approx([score for *_, score in picks], rel=1e-5)
    assert sum(len(row["masks"]) for row in rows) >= 3


def test_a_missing_column_is_named(small_config):
    import ray

    dataset = ray.data.from_items([{"picture": np.zeros((8, 8, 3), np.uint8)}]).materialize()
    with pytest.raises(InputError, match="no column 'image'"):
        label_dataset(dataset, small_config())


def test_an_image_that_cannot_be_used_is_an_error_row(small_config):
    import ray

    items = [{"case": 0, "image": b"no image"}, {"case": 1, "image": None}]
    rows = label_dataset(ray.data.from_items(items), small_config()).take_all()
    assert [row["status"] for row in rows] == ["error", "error"]
    assert {row["error"]["stage"] for row in rows} == {"decode"}


def test_a_model_that_cannot_be_built_is_named_in_one_line(small_config):
    import ray

    config = small_config(f"propose.model={Raises.__module__}:Raises", "refine.model=none")
    with pytest.raises(ModelError, match="built: ValueError: there is no licence for"):
        label_dataset(ray.data.range(4).map(lambda row: row), config)


TWO_CPUS = """
import sys
import ray
from salip_ray import label_dataset, load_config

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
config = load_config("lungs", overrides=sys.argv[3:])
images = ray.data.read_images(sys.argv[1], mode="RGB").map(lambda row: row)
label_dataset(images, config).write_parquet(sys.argv[2])
"""


def test_two_cpus_are_enough_for_a_dataset_that_reads_files(tmp_path):
    """The actors must leave a CPU to the reads and writes, or nothing ever moves."""
    (tmp_path / "in").mkdir()
    for index in range(4):
        image = make_phantom("chest_xray", index, bank="tune", size=64).image
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), image)
    environment = {name: v for name, v in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_CPUS, str(tmp_path / "in"), str(tmp_path / "out"), *SMALL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    # Images of several shapes have columns of several types: pyarrow reads no table of all files.
    files = (tmp_path / "out").glob("*.parquet")
    assert sum(pq.read_metadata(file).num_rows for file in files) == 4


def test_pools_that_leave_no_cpu_to_the_reads_are_refused(small_config):
    import ray

    cpus = ray.cluster_resources()["CPU"]
    config = small_config(f"pools.propose.cpus={cpus - 1}", "pools.propose.size=1")
    with pytest.raises(ResourceError, match=r"other operators 1\), but Ray has"):
        label_dataset(ray.data.range(4).map(lambda row: row), config)
