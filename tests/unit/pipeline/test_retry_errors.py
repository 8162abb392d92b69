"""Which shards a retry groups, which settings it may change, and where it fetches from."""

from __future__ import annotations

import nibabel
import numpy as np
import pyarrow as pa
import pytest

from salip_ray.config import StorageConfig, load_config
from salip_ray.errors import ConfigError
from salip_ray.output.manifest import TODO_SCHEMA, align_to_blocks, make_manifest
from salip_ray.pipeline import inputs
from salip_ray.pipeline.retry_errors import _group_similar, _load_recipe, _with_addresses
from salip_ray.sources.expand import expand
from salip_ray.sources.listing import Listing, list_images


def errors(counts):
    """Return rows to retry, given their number in each shard."""
    rows = [
        {"image_id": f"{shard}-{seq}", "uri": f"/{shard}/{seq}", "shard": shard, "seq": seq}
        for shard, count in counts.items()
        for seq in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=TODO_SCHEMA)


def test_shards_with_few_errors_are_not_padded_to_the_size_of_one_with_many():
    counts = {5: 1, 6: 1000, **dict.fromkeys(range(10, 400), 1), 500: 9, 700: 2}
    groups = list(_group_similar(errors(counts)))
    assert sorted(row for rows, _ in groups for row in rows["image_id"].to_pylist()) == sorted(
        errors(counts)["image_id"].to_pylist()
    )
    assert [block for _, block in groups] == [2, 9, 1000]
    assert sum(align_to_blocks(rows, block).num_rows for rows, block in groups) < 2 * sum(
        counts.values()
    )
    assert list(_group_similar(errors({}))) == []


RECIPE = load_config(
    {"task": {"name": "t", "prompts": {"a": ["b"]}}},
    overrides={"sam": {"model": "vit_b", "checkpoint": "s3://b/sam.pth"}},
).recipe()


def test_only_the_addresses_of_weights_may_change_in_the_recipe():
    config = _load_recipe(
        RECIPE, StorageConfig(), ["sam.checkpoint=/new/sam.pth", "pools.fetch_cpus=1"]
    )
    assert config.sam.checkpoint == "/new/sam.pth"
    for change in (
        "sam.model=vit_h",
        "clip.model=ViT-B-32",
        "refine.box_jitter=4",
        "refine.sam=1",
        "runs=1",
    ):
        with pytest.raises(ConfigError, match="addresses of its weights"):
            _load_recipe(RECIPE, StorageConfig(), [change])


def test_an_input_given_again_supplies_the_addresses_of_slices(tmp_path, monkeypatch):
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.eye(4))
    nibabel.save(volume, tmp_path / "v.nii.gz")
    config = load_config("brain")
    listing = list_images(tmp_path)
    frozen = make_manifest(expand(listing, config)[0], 2).frozen
    column = listing.table.schema.get_field_index("address")
    address = f"{tmp_path}/v.nii.gz"  # as if it were a signed one
    signed = Listing(
        listing.table.set_column(column, "address", pa.array([address])), listing.skipped
    )
    monkeypatch.setattr(inputs, "list_images", lambda *_, **__: signed)
    assert (
        _with_addresses(frozen, config, "https://h/list.csv").table["address"].to_pylist()
        == [address] * 3
    )
