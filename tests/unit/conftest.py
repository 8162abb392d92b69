"""Fixtures of the unit tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.config import Config, load_config
from salip_ray.rows import LABEL_SCHEMA, MANIFEST_SCHEMA, SCHEMA_VERSION

Row = dict[str, Any]


@pytest.fixture
def lungs_config() -> Config:
    return load_config(
        {"task": {"name": "lungs", "prompts": {"lungs": ["the lungs of a chest X-ray"]}}},
        overrides=["run.modes=[cascade, unprompted, gt_sam]"],
    )


@pytest.fixture
def write_output(tmp_path: Path, lungs_config: Config) -> Callable[..., Path]:
    """Writes an output folder as the job does, each list of rows as a committed shard."""

    def write(*shards: Sequence[Row], pending: int = 0, config: Config = lungs_config) -> Path:
        out = tmp_path / "labels"
        (out / "shards").mkdir(parents=True)
        run = {"schema_version": SCHEMA_VERSION, "fingerprint": {"recipe": config.recipe()}}
        (out / "run.json").write_text(json.dumps(run))
        for number, rows in enumerate(shards):
            table = pa.Table.from_pylist(list(rows), schema=LABEL_SCHEMA)
            pq.write_table(table, out / "shards" / f"part-{number:05d}.parquet")
        manifest = [
            {"image_id": row["image_id"], "uri": row["uri"], "shard": number}
            for number, rows in enumerate(shards)
            for row in rows
        ]
        manifest += [
            {"image_id": f"pending-{n}", "uri": f"/in/pending-{n}.png", "shard": len(shards)}
            for n in range(pending)
        ]
        pq.write_table(
            pa.Table.from_pylist(manifest, schema=MANIFEST_SCHEMA), out / "manifest.parquet"
        )
        return out

    return write
