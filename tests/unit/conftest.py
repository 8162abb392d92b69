"""Fixtures of the unit tests."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.config import Config, load_config
from salip_ray.schema import LABEL_SCHEMA, MANIFEST_SCHEMA, SCHEMA_VERSION
from tests.browser import started_browser

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
        images = pending + sum(map(len, shards))
        fingerprint = {"recipe": config.recipe(), "manifest": {"images": images}}
        run = {"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint}
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


class Web:
    """A web server: what it answers by path, and what it was asked for."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        # Status, body and headers of each request; the last one of all that follow.
        self.answers = {}
        self.asked = []

    def answer(self, path):
        answers = self.answers.get(path, [(404, b"")])
        status, body, *headers = answers.pop(0) if len(answers) > 1 else answers[0]
        return status, body, headers[0] if headers else {}


@pytest.fixture
def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            web.asked.append((self.command, path))
            status, body, headers = web.answer(path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web = Web(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield web
        server.shutdown()
