"""Write a small output as a job does, without running one."""

from __future__ import annotations

import json

from salip_ray.config import load_config
from salip_ray.output import job_record, layout
from salip_ray.output.commit import commit_shard
from salip_ray.output.manifest import make_manifest
from salip_ray.output.store import Store
from salip_ray.output.summary import summarise, write_summary
from salip_ray.schema import SCHEMA_VERSION
from tests.unit.output.test_commit import refined, table
from tests.unit.output.test_job_record import listing

TASK = {
    "task": {"name": "t", "prompts": {"lungs": ["the lungs"]}},
    "run": {"rows_per_shard": 2},
}
STATUSES = ("ok", "error", "empty", "ok", "ok")


def write_output(folder, *, manifest=None, hidden=False, shards=3, version=SCHEMA_VERSION):
    """Write an output of five images in three shards; commit the first few shards."""
    store = Store(folder, elsewhere={} if manifest is None else {layout.MANIFEST: manifest})
    images = make_manifest(listing([f"/in/{n}.png" for n in range(5)]), 2)
    recipe = load_config({**TASK, "privacy": {"hash_uris": hidden}}).recipe()
    job_record.claim_or_resume_job(
        store, images, job_record.make_fingerprint(recipe, {"sam": "a"}, images, None)
    )
    if version != SCHEMA_VERSION:
        run = json.loads(store.read(layout.RUN))
        store.write(layout.RUN, json.dumps({**run, "schema_version": version}).encode())
    for shard in range(shards):
        commit(store, shard, hidden=hidden, version=version)
    if shards == 3:
        write_summary(store, summarise(store, images))
    return store


def commit(store, shard, *, hidden=False, version=SCHEMA_VERSION):
    """Commit a shard of an output from :func:`write_output`."""
    rows = []
    for planned in job_record.read_manifest(store).to_pylist():
        if planned["shard"] == shard:
            seq = len(rows)
            row = refined(seq, STATUSES[shard * 2 + seq])
            uri = f"id:{planned['image_id']}" if hidden else planned["uri"]
            rows.append({**row, "image_id": planned["image_id"], "uri": uri, "_shard": shard})
    commit_shard(store, shard, table(*rows), len(rows), {"lungs": 1}, version=version)
