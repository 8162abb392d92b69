"""The cascade inside somebody's own Ray Data pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray import Cascade, label_dataset
from salip_ray.errors import InputError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output.masks import decode_rle

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
        found = [item["clip_score"] for item in row["ranking"]]
        assert found == pytest.approx([score for *_, score in picks], rel=1e-5)
    assert sum(len(row["masks"]) for row in rows) >= 3


def test_a_missing_column_is_named(small_config):
    import ray

    dataset = ray.data.from_items([{"picture": np.zeros((8, 8, 3), np.uint8)}]).materialize()
    with pytest.raises(InputError, match="no column 'image'"):
        label_dataset(dataset, small_config())
