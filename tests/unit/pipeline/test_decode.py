"""The head of the pipeline: what is fetched is what was listed."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from salip_ray.config import load_config
from salip_ray.output.manifest import PADDING, TODO_SCHEMA
from salip_ray.pipeline import decode
from salip_ray.pipeline.decode import fetch_and_decode
from salip_ray.pipeline.monitor import StageReporter

TASK = {"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}}}


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(*listed, reporter=None):
    found = []
    todo = [{"image_id": f"{n:032x}", "shard": 0, "seq": n, **row} for n, row in enumerate(listed)]
    batch = pa.Table.from_pylist(todo, schema=TODO_SCHEMA)
    for table in fetch_and_decode(batch, load_config(TASK), None, reporter or StageReporter()):
        found += table.drop_columns(["_working"]).to_pylist()
    return found


@pytest.fixture
def bodies(monkeypatch):
    """What a store sends for each address, one body after the other."""
    sent = {}

    def fetch_all(addresses, options):
        return [sent[address].pop(0) for address in addresses]

    monkeypatch.setattr(decode, "fetch_all", fetch_all)
    return sent


def test_a_body_that_ends_early_is_fetched_again(bodies):
    whole = png()
    bodies["s3://b/a.png"] = [whole[:40], whole[:50], whole]
    bodies["s3://b/b.png"] = [whole]
    uris = [{"uri": uri, "size": len(whole)} for uri in ("s3://b/a.png", "s3://b/b.png")]
    assert [row["status"] for row in rows(*uris)] == ["ok", "ok"]
    assert bodies == {"s3://b/a.png": [], "s3://b/b.png": []}


def test_a_file_that_is_another_than_was_listed_is_an_error(bodies):
    bodies["s3://b/a.png"] = [png()] * 3
    (row,) = rows({"uri": "s3://b/a.png", "size": 7})
    assert row["status"] == "error"
    assert row["error"]["stage"] == "fetch"
    assert "but 7 when it was listed" in row["error"]["message"]


def test_without_a_listed_size_what_comes_is_taken(bodies):
    bodies["s3://b/a.png"] = [png()]
    assert rows({"uri": "s3://b/a.png"})[0]["status"] == "ok"


def test_padding_passes_without_being_fetched_or_counted(bodies):
    told = []

    class Listening(StageReporter):
        def done(self, stage, seconds, **about):
            told.append(about["row"]["image_id"])

    bodies["s3://b/a.png"] = [png()]
    padding = {"image_id": "", "uri": "", "seq": PADDING}
    found = rows({"uri": "s3://b/a.png"}, padding, reporter=Listening())
    assert [row["_seq"] for row in found] == [0, PADDING]
    assert found[1]["status"] == "error"
    assert told == [found[0]["image_id"]]
