"""The head of the pipeline: what is fetched is what was listed."""

from __future__ import annotations

import io
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from salip_ray.config import load_config
from salip_ray.output.manifest import PADDING, TODO_SCHEMA
from salip_ray.pipeline.decoding.decode import fetch_and_decode
from salip_ray.pipeline.monitoring.monitor import StageReporter
from salip_ray.sources import fetch

TASK = {"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}}}


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(*listed, reporter=None):
    decoded = []
    todo = [{"image_id": f"{n:032x}", "shard": 0, "seq": n, **row} for n, row in enumerate(listed)]
    batch = pa.Table.from_pylist(todo, schema=TODO_SCHEMA)
    for table in fetch_and_decode(batch, load_config(TASK), None, reporter or StageReporter()):
        decoded += table.drop_columns(["_working"]).to_pylist()
    return decoded


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(fetch, "pause", lambda *_: None)


def serve(web, name, *bodies):
    """Have a web server answer with one body after the other; return the address."""
    web.answers[f"/{name}"] = [(200, body) for body in bodies]
    return f"{web.url}/{name}"


def damage(data):
    return data[:50] + bytes([data[50] ^ 1]) + data[51:]


def test_a_body_that_ends_early_is_fetched_again(web):
    whole = png()
    a = serve(web, "a.png", whole[:40], whole[:50], whole)
    b = serve(web, "b.png", whole)
    decoded = rows({"uri": a, "size": len(whole)}, {"uri": b, "size": len(whole)})
    assert [row["status"] for row in decoded] == ["ok", "ok"]
    assert sorted(path for _, path in web.asked) == ["/a.png"] * 3 + ["/b.png"]


def test_a_file_of_another_size_than_was_listed_is_an_error(web):
    (row,) = rows({"uri": serve(web, "a.png", png()), "size": 7})
    assert row["status"] == "error"
    assert row["error"]["stage"] == "fetch"
    assert "but 7 when it was listed" in row["error"]["message"]


def test_without_a_listed_size_any_size_is_taken(web):
    assert rows({"uri": serve(web, "a.png", png())})[0]["status"] == "ok"


def test_a_remote_file_that_cannot_be_decoded_is_fetched_again(web):
    whole = png()
    (row,) = rows({"uri": serve(web, "a.png", damage(whole), whole), "size": len(whole)})
    assert (row["status"], len(web.asked)) == ("ok", 2)


def test_a_remote_file_that_is_damaged_itself_is_fetched_twice_only(web):
    (row,) = rows({"uri": serve(web, "a.png", damage(png()))})
    assert (row["status"], row["error"]["stage"]) == ("error", "decode")
    assert len(web.asked) == 2


def test_a_local_file_replaced_after_listing_by_one_of_its_size_is_an_error(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    etag = f"{path.stat().st_mtime_ns:x}"
    listed = {"uri": str(path), "size": path.stat().st_size, "etag": etag}
    assert rows(listed)[0]["status"] == "ok"
    os.utime(path, ns=(1, 1))
    (row,) = rows(listed)
    assert row["error"]["message"] == (
        f"{path} was changed after it was listed: label it into a new output"
    )


def test_a_file_above_max_bytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(3_000_000_000)
    (row,) = rows({"uri": str(tmp_path / "a.png")})  # as from a manifest: the size is unknown
    assert row["error"]["stage"] == "fetch"
    assert "has 3,000,000,000 bytes, above image.max_bytes" in row["error"]["message"]


def test_padding_passes_without_being_fetched_or_counted(web):
    counted = []

    class Listening(StageReporter):
        def done(self, stage, seconds, **about):
            counted.append(about["row"]["image_id"])

    address = serve(web, "a.png", png())
    padding = {"image_id": "", "uri": "", "seq": PADDING}
    decoded = rows({"uri": address}, padding, reporter=Listening())
    assert [row["_seq"] for row in decoded] == [0, PADDING]
    assert decoded[1]["status"] == "error"
    assert counted == [decoded[0]["image_id"]]
