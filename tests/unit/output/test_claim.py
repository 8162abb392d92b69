"""Claiming an empty output and resuming one, for every kind of output."""

from __future__ import annotations

import json

import pytest

from salip_ray.errors import LeaseError, OutputError, ResumeError
from salip_ray.output.claim import Record, claim_or_resume, claimed, differences
from salip_ray.output.layout import EXPORT, LEASE, TUNING
from salip_ray.output.lease import held
from salip_ray.output.store import Store

JOB = {"recipe": {"sam": {"points": 32}}, "seed": 1, "sizes": (1, 2)}
SEARCH = Record("search", TUNING, JOB, key="job", before={"schema_version": 1})
EXPORTED = Record(
    "export", EXPORT, JOB, key=None, before={"salip_ray": "1.0"}, after={"complete": False}
)
RECORDS = pytest.mark.parametrize("record", [SEARCH, EXPORTED], ids=lambda record: record.kind)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def changed(record, **changes):
    made_by = {**record.made_by, **changes}
    return Record(record.kind, record.file, made_by, record.key, {"salip_ray": "2.0"})


@RECORDS
def test_empty_location_is_claimed_with_the_record(store, record):
    store.write(LEASE, b"{}")  # the lease is taken before the claim
    assert claim_or_resume(store, record) is None
    content = json.loads(store.read(record.file))
    assert content == json.loads(json.dumps(record.content()))


def test_record_keeps_its_fields_in_order(store):
    claim_or_resume(store, SEARCH)
    assert list(json.loads(store.read(TUNING))) == ["schema_version", "job"]
    other = Store(f"{store.location}2")
    claim_or_resume(other, EXPORTED)
    fields = ["salip_ray", "recipe", "seed", "sizes", "complete"]
    assert list(json.loads(other.read(EXPORT))) == fields


@RECORDS
def test_same_command_resumes_and_leaves_the_record(store, record):
    claim_or_resume(store, record)
    data = store.read(record.file)
    assert claim_or_resume(store, changed(record)) == json.loads(data)
    assert store.read(record.file) == data


@RECORDS
def test_other_command_is_refused_with_what_changed(store, record):
    claim_or_resume(store, record)
    data = store.read(record.file)
    other = changed(record, seed=2, recipe={"sam": {"points": 64}})
    with pytest.raises(ResumeError) as error:
        claim_or_resume(store, other)
    assert f"was created by another {record.kind}. Changed: " in str(error.value)
    assert "sam.points was 32, is 64; seed was 1, is 2. Either use the original" in str(error.value)
    assert store.read(record.file) == data


@RECORDS
def test_location_of_other_files_is_refused(store, record):
    store.write("thesis.tex", b"")
    with pytest.raises(OutputError, match=rf"holds no {record.kind} of salip-ray .*'thesis\.tex'"):
        claim_or_resume(store, record)
    assert store.names() == ["thesis.tex"]


@RECORDS
@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b"\xff"])
def test_damaged_record_is_refused(store, record, content):
    store.write(record.file, content)
    with pytest.raises(OutputError, match=rf"is not the record of a {record.kind}"):
        claim_or_resume(store, record)


@RECORDS
def test_kill_at_the_first_file_can_be_resumed(store, tmp_path, record):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{record.file}.0123456789ab.tmp").write_bytes(b"{")
    with claimed(store, record) as claim:
        assert claim.earlier is None
        assert {path.name for path in (tmp_path / "out").iterdir()} == {record.file, LEASE}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [record.file]


@RECORDS
def test_temporary_files_of_a_killed_writer_are_deleted(store, tmp_path, record):
    claim_or_resume(store, record)
    folder = tmp_path / "out" / "labelsTr"
    folder.mkdir()
    (folder / ".case_0.png.0123456789ab.tmp").write_bytes(b"half")
    with claimed(store, record) as claim:
        assert claim.earlier == json.loads(store.read(record.file))
        assert list(folder.iterdir()) == []


@RECORDS
def test_second_writer_is_refused_until_the_first_one_ends(store, record):
    with (
        claimed(store, record),
        pytest.raises(LeaseError, match=r"is being written by another driver \(host .*, process"),
        claimed(store, record),
    ):
        pass
    with claimed(store, record) as claim:
        claim.lease.require_owner()


@RECORDS
def test_foreign_location_is_refused_before_a_lease_or_a_clean_up(store, tmp_path, record):
    store.write("thesis.tex", b"x")
    (tmp_path / "out" / ".draft.tmp").write_text("x")
    with pytest.raises(OutputError, match="is not empty"), claimed(store, record):
        pass
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"thesis.tex", ".draft.tmp"}


@RECORDS
def test_other_command_is_refused_without_leaving_a_lease(store, record):
    with claimed(store, record):
        pass
    other = changed(record, seed=2)
    with pytest.raises(ResumeError, match="seed was 1, is 2"), claimed(store, other):
        pass
    with held(store):
        pass
    assert store.read(LEASE) is None


def test_long_list_of_changes_is_cut_short(store):
    claim_or_resume(store, changed(SEARCH, **{f"field_{n}": n for n in range(9)}))
    with pytest.raises(ResumeError, match=r"field_4 was 4, is null; and 4 more\. Either"):
        claim_or_resume(store, SEARCH)


def test_differences_name_fields_that_appear_and_disappear():
    before, now = {"a": 1, "b": {"c": 2}}, {"b": {"c": 3, "d": 4}}
    assert list(differences(before, now)) == [
        "a was 1, is null",
        "b.c was 2, is 3",
        "b.d was null, is 4",
    ]
