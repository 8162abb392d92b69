"""The record of a job: who claimed the output, what is committed, and what must not change."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from salip_ray.config import load_config
from salip_ray.errors import OutputError, ResumeError
from salip_ray.output import job_record, layout, run_record
from salip_ray.output.manifest import make_manifest
from salip_ray.output.run_record import record_devices
from salip_ray.output.store import Store
from salip_ray.sources.listing import LISTING_SCHEMA, Listing


def listing(uris, etag="e"):
    rows = [{"uri": uri, "size": 1, "etag": etag, "address": None} for uri in uris]
    return Listing(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA))


TASK = {"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}}}
THREE_IMAGES = make_manifest(listing(["/a", "/b", "/c"]), 2)


def fingerprint(manifest=THREE_IMAGES, references=None, sam="a" * 64, **overrides):
    config = load_config(TASK, overrides=overrides)
    return job_record.make_fingerprint(config.recipe(), {"sam": sam}, manifest, references)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def test_new_output_is_claimed_and_the_manifest_frozen(store):
    job = job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    assert job.committed == frozenset()
    run = json.loads(store.read("run.json"))
    assert run["schema_version"] == 3
    assert run["fingerprint"]["manifest"] == {"sha256": THREE_IMAGES.digest, "images": 3}
    assert run["versions"]["ray"]
    frozen = pq.read_table(io.BytesIO(store.read("manifest.parquet")))
    assert frozen.equals(THREE_IMAGES.frozen)


def test_resumed_job_sees_committed_shards_only(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    store.write("masks/part-00000.tar", b"")
    store.write("stats/part-00000.json", b"")
    store.write("shards/part-00001.parquet", b"x")
    store.write("shards/part-123456.parquet", b"x")
    store.write("shards/notes.txt", b"")
    before = store.read("run.json")
    job = job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    assert job.committed == {1, 123456}
    assert job.notes == ()
    assert store.read("run.json") == before


def test_kill_between_claim_and_manifest_is_repaired(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    (manifest,) = [name for name in store.names() if name.startswith("manifest")]
    Path(store.location, manifest).unlink()
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    assert store.read("manifest.parquet") == job_record.manifest_bytes(THREE_IMAGES)


def test_shards_without_their_manifest_are_refused(store, tmp_path):
    """An extended output has other shards than a plain cut of the same images."""
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN), extend=True)
    store.write("shards/part-00001.parquet", b"x")
    store.delete("manifest.parquet")
    with pytest.raises(ResumeError, match=r"has 1 committed shard, but \S+/out/manifest\.parquet"):
        job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN))
    assert store.read("manifest.parquet") is None


def test_mistyped_manifest_is_named(store, tmp_path):
    def store_with(name):
        return Store(store.location, elsewhere={layout.MANIFEST: str(tmp_path / name)})

    job_record.claim_or_resume_job(store_with("names.parquet"), THREE_IMAGES, fingerprint())
    store.write("shards/part-00001.parquet", b"x")
    with pytest.raises(ResumeError, match=r"but \S+/nmaes\.parquet, .* name it with --manifest"):
        job_record.claim_or_resume_job(store_with("nmaes.parquet"), THREE_IMAGES, fingerprint())
    assert not (tmp_path / "nmaes.parquet").exists()
    assert job_record.claim_or_resume_job(
        store_with("names.parquet"), THREE_IMAGES, fingerprint()
    ).committed == {1}


def test_manifest_outside_of_the_output_stays_there(store, tmp_path):
    outside = Store(store.location, elsewhere={layout.MANIFEST: str(tmp_path / "names.parquet")})
    job_record.claim_or_resume_job(outside, THREE_IMAGES, fingerprint())
    with pytest.raises(ResumeError, match="stored elsewhere: give that file again with --manifest"):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    assert store.read(layout.MANIFEST) is None
    job_record.claim_or_resume_job(outside, THREE_IMAGES, fingerprint())
    other = Store(tmp_path / "other")
    job_record.claim_or_resume_job(other, THREE_IMAGES, fingerprint())
    with pytest.raises(ResumeError, match="holds its manifest itself: leave --manifest out"):
        job_record.claim_or_resume_job(
            Store(other.location, elsewhere={layout.MANIFEST: str(tmp_path / "more.parquet")}),
            THREE_IMAGES,
            fingerprint(),
        )


def test_folder_of_other_files_is_refused(store):
    store.write("thesis.docx", b"")
    with pytest.raises(
        OutputError, match=r"not empty and holds no job of salip-ray .*thesis\.docx"
    ):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    assert store.names() == ["thesis.docx"]


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"no json", b'{"schema_version": 2}'])
def test_damaged_run_json_is_refused(store, content):
    store.write("run.json", content)
    with pytest.raises(OutputError, match="not the record of a job of salip-ray"):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())


@pytest.mark.parametrize(("written", "age"), [(1, "an older"), (99, "a newer")])
def test_other_schema_version_is_refused(store, written, age):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    run = json.loads(store.read("run.json"))
    store.write("run.json", json.dumps({**run, "schema_version": written}).encode())
    with pytest.raises(
        OutputError,
        match=f"schema_version {written}, this version reads 2 and 3: use {age} salip-ray",
    ):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"propose": {"points_per_side": 4}},
            r"propose\.points_per_side was \d+, is 4",
        ),
        ({"task": {"prompts": {"lungs": ["other"]}}}, r"task\.prompts\.lungs was .*other"),
        ({"run": {"modes": ["unprompted"]}}, r"run\.modes"),
        ({"sam": "b" * 64}, r"weights\.sam was .*aaa.*, is .*bbb"),
        ({"references": "/masks"}, r"references was null, is ./masks"),
        (
            {"manifest": make_manifest(listing(["/a", "/b", "/d"]), 2)},
            r"the input \(1 image added, 1 image removed\)",
        ),
    ],
)
def test_changes_are_named(store, changed, message):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    manifest = changed.get("manifest", THREE_IMAGES)
    with pytest.raises(ResumeError, match=message):
        job_record.claim_or_resume_job(store, manifest, fingerprint(**changed))
    assert store.read("manifest.parquet") == job_record.manifest_bytes(THREE_IMAGES)


GROWN = make_manifest(listing(["/0", "/a", "/b", "/c", "/d"]), 2)


def test_grown_input_is_refused_with_advice(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    with pytest.raises(ResumeError, match=r"the input \(2 images added\).*--extend"):
        job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN))
    wider = fingerprint(GROWN, propose={"points_per_side": 4})
    with pytest.raises(ResumeError, match=r"points_per_side") as refused:
        job_record.claim_or_resume_job(store, GROWN, wider, extend=True)
    assert "--extend" not in str(refused.value)
    fewer = make_manifest(listing(["/a", "/b", "/d"]), 2)
    with pytest.raises(ResumeError, match=r"1 image added, 1 image removed"):
        job_record.claim_or_resume_job(store, fewer, fingerprint(fewer), extend=True)


def test_extended_job_is_resumed(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    job = job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN), extend=True)
    assert job.manifest.table["uri"].to_pylist() == ["/a", "/b", "/c", "/0", "/d"]
    assert job.manifest.table["shard"].to_pylist() == [0, 0, 1, 2, 2]
    run = json.loads(store.read("run.json"))
    assert run["fingerprint"]["manifest"] == {"sha256": GROWN.digest, "images": 5}
    assert run["extensions"][0]["images"] == 2
    again = job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN))
    assert again.manifest.table.equals(job.manifest.table)
    with pytest.raises(ResumeError, match="2 images removed"):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())


def test_killed_extension_is_completed(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    before = store.read("run.json")
    job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN), extend=True)
    store.write("run.json", before)  # as if killed after the manifest
    job_record.claim_or_resume_job(store, GROWN, fingerprint(GROWN))
    assert json.loads(store.read("run.json"))["fingerprint"]["manifest"]["images"] == 5


def test_pools_storage_and_limits_may_change(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    other = {
        "pools": {"propose": {"size": 3}},
        "storage": {"input": {"key": "AK", "secret": "hush"}},
        "run": {"max_error_share": 1.0},
    }
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint(**other))
    assert b"hush" not in store.read("run.json")


def test_other_versions_give_a_note(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    run = json.loads(store.read("run.json"))
    run["versions"]["torch"] = "0.1"
    store.write("run.json", json.dumps(run).encode())
    (note,) = job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint()).notes
    assert "torch 0.1 ->" in note


def test_another_version_of_this_package_resumes_with_a_note(store, monkeypatch):
    """Its version is no part of the fingerprint: recipe, weights and input are."""
    monkeypatch.setattr(job_record, "package_versions", lambda: {"salip-ray": "0.1.0"})
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    monkeypatch.setattr(run_record, "package_versions", lambda: {"salip-ray": "0.2.0"})
    (note,) = job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint()).notes
    assert "salip-ray 0.1.0 -> 0.2.0" in note
    assert json.loads(store.read("run.json"))["versions"] == {"salip-ray": "0.1.0"}
    with pytest.raises(ResumeError, match="weights"):
        job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint(sam="b" * 64))


def test_devices_are_recorded_once_each(store):
    job_record.claim_or_resume_job(store, THREE_IMAGES, fingerprint())
    for cpus in (2, 2, 4):
        record_devices(store, {"cpus": cpus})
    assert json.loads(store.read("run.json"))["devices"] == [{"cpus": 2}, {"cpus": 4}]


def test_a_new_job_does_not_take_the_manifest_of_another_for_its_own(store, tmp_path):
    file = tmp_path / "names.parquet"
    other = make_manifest(listing(["/x"]), 2)
    file.write_bytes(job_record.manifest_bytes(other))
    apart = Store(store.location, elsewhere={"manifest.parquet": str(file)})
    with pytest.raises(OutputError, match=r"names\.parquet exists, .* give --manifest a new file"):
        job_record.claim_or_resume_job(apart, THREE_IMAGES, fingerprint())
    assert store.names() == []
    file.write_bytes(job_record.manifest_bytes(THREE_IMAGES))  # of a claim that was killed
    job_record.claim_or_resume_job(apart, THREE_IMAGES, fingerprint())
