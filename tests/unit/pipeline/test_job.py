"""A job and its retry around the part that runs on Ray, which is replaced here."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from salip_ray.config import load_config
from salip_ray.errors import ImageError, InputError, LeaseError, ResumeError
from salip_ray.output.commit import commit_shard
from salip_ray.output.committed_rows import merge_committed_rows
from salip_ray.output.layout import LEASE
from salip_ray.pipeline.job import label
from salip_ray.pipeline.retry_errors import retry
from salip_ray.pipeline.rows import columns
from salip_ray.schema import LABEL_SCHEMA, ImageRef, label_schema

ERROR = {"stage": "fetch", "type": "ImageError", "message": "bad"}


class FakeRun:
    """Stands for ``run_on_ray``: commit rows of a given status.

    Attributes:
        status: of the rows by image number; ``empty`` by default.
        after: called with the job when all rows are committed.
        calls: the number of runs.
    """

    def __init__(self):
        self.status, self.after, self.calls = {}, lambda _: None, 0

    def __call__(self, job, todo, *, rows_per_block=None, merge=False):
        self.calls += 1
        for shard in pc.unique(todo["shard"]).to_pylist():
            rows = self.rows(todo.filter(pc.equal(todo["shard"], shard)))
            before = None
            if merge:
                rows, before = merge_committed_rows(job.store, shard, rows)
            size = int(job.manifest.sizes[shard])
            commit_shard(
                *(job.store, shard, rows, size, {"lungs": 1}), before=before, version=job.version
            )
        self.after(job)

    def rows(self, todo):
        todo = todo.filter(pc.greater_equal(todo["seq"], 0))
        count = todo.num_rows
        names = [uri.rpartition("/")[2] for uri in todo["uri"].to_pylist()]
        status = [self.status.get(int(name.partition(".")[0]), "empty") for name in names]
        types = {**{field.name: field.type for field in LABEL_SCHEMA}, **columns.TYPES}
        known = {
            "image_id": todo["image_id"].to_pylist(),
            "uri": todo["uri"].to_pylist(),
            "status": status,
            "error": [ERROR if one == "error" else None for one in status],
            "_png": [None if one == "error" else b"png" for one in status],
            "_seconds": [{"fetch": 1.0}] * count,
        }
        needed = (*LABEL_SCHEMA.names, "_png", "_seconds", "_fallbacks")
        rows = {name: pa.array(known.get(name, [None] * count), types[name]) for name in needed}
        return pa.table({**rows, "_seq": todo["seq"]})


@pytest.fixture
def fake_run(monkeypatch):
    fake_run = FakeRun()
    for function in (label, retry):
        module = sys.modules[function.__module__]
        monkeypatch.setattr(module, "run_on_ray", fake_run)
        monkeypatch.setattr(module, "identify", lambda _: {"sam": "a" * 64})
        monkeypatch.setattr(module, "pin", lambda config, _: config)
    return fake_run


@pytest.fixture
def job(tmp_path, fake_run):
    """Return a function that labels the images of ``in`` into ``out``, two per shard."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        add_image(tmp_path, number)
    config = load_config("lungs", overrides=["run.rows_per_shard=2", "run.max_error_share=1"])
    return lambda **options: label(tmp_path / "in", tmp_path / "out", config, quiet=True, **options)


def add_image(folder, number):
    Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / "in" / f"{number}.png")


def taken_over(job):
    """Let another driver take the output over, unnoticed by this one."""
    content = json.loads(job.store.read(LEASE))
    job.store.write(LEASE, json.dumps({**content, "owner": "other"}).encode())


def test_lost_lease_writes_no_summary(job, fake_run, tmp_path):
    fake_run.after = taken_over
    with pytest.raises(LeaseError, match="taken over"):
        job()
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_retry_that_lost_its_lease_stops(job, fake_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[retry.__module__], "_SIMILAR", 2)  # each shard in its own run
    fake_run.status = {0: "error", 1: "error", 2: "error"}
    job()
    before = (tmp_path / "out" / "summary.json").read_bytes()
    fake_run.calls, fake_run.after = 0, taken_over
    with pytest.raises(LeaseError, match="taken over"):
        retry(tmp_path / "out", quiet=True)
    assert fake_run.calls == 1
    assert (tmp_path / "out" / "summary.json").read_bytes() == before


def killed(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("again", ["label", "retry"])
def test_a_missing_summary_is_written_by_the_next_call(job, fake_run, tmp_path, again):
    fake_run.after = killed
    with pytest.raises(KeyboardInterrupt):
        job()
    written = tmp_path / "out" / "summary.json"
    assert not written.exists()
    summary = job() if again == "label" else retry(tmp_path / "out", quiet=True)
    assert json.loads(written.read_bytes())["status"] == summary.status == {"empty": 4}


def test_an_outdated_summary_is_written_again(job, fake_run, tmp_path):
    job()
    add_image(tmp_path, 4)
    fake_run.after = killed
    with pytest.raises(KeyboardInterrupt):
        job(extend=True)
    written = tmp_path / "out" / "summary.json"
    assert json.loads(written.read_bytes())["images"] == 4
    job(extend=True)
    assert json.loads(written.read_bytes())["images"] == 5


def test_a_correct_summary_is_not_written_again(job, tmp_path):
    job()
    before = (tmp_path / "out" / "summary.json").read_bytes()
    job()
    retry(tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "summary.json").read_bytes() == before


def test_a_job_with_other_filters_is_another_job_and_is_refused_by_name(job, tmp_path):
    assert job(exclude=["3.*"], limit=2).images == 2
    assert job(exclude=["3.*"], limit=2).images == 2
    for options, changed in (
        ({"limit": 3, "exclude": ["3.*"]}, "selection.limit was 2, is 3"),
        ({"limit": 2}, r'selection.exclude was \["3.\*"\], is null'),
        ({}, "selection was "),
    ):
        with pytest.raises(ResumeError, match=changed):
            job(**options)
        with pytest.raises(ResumeError):
            job(**options, extend=True)


def test_the_summary_counts_what_was_left_out_and_quiet_shows_one_line(job, tmp_path, capfd):
    for name in ("notes.txt", ".hidden.png", "x.zip"):
        (tmp_path / "in" / name).write_bytes(b"1")
    left_out = {"other": 1, "archives": 1, "hidden": 1, "excluded": 1}
    assert job(exclude=["3.*"]).skipped == left_out
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("left out: 1 file without an image suffix, 1 archive (")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["skipped"] == left_out
    assert retry(tmp_path / "out", quiet=True).skipped == left_out


@pytest.mark.parametrize(("status", "noted"), [({}, True), ({2: "ok"}, False)])
def test_a_job_without_a_single_label_says_where_the_reasons_are(
    tmp_path, fake_run, capfd, status, noted
):
    (tmp_path / "in").mkdir()
    for number in range(3):
        add_image(tmp_path, number)
    fake_run.status = status
    label(tmp_path / "in", tmp_path / "out", load_config("lungs"))
    assert ("note: no image has a label" in capfd.readouterr().err) is noted


def test_a_retry_does_not_guess_which_image_a_name_means(tmp_path, fake_run):
    """Two images share a name: neither label nor retry gives them its mask or boxes."""
    for part in ("1", "2"):
        (tmp_path / part / "in").mkdir(parents=True)
        add_image(tmp_path / part, 0)
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8), 1).save(tmp_path / "masks" / "0.png")
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\n0.png,1,1,5,5\n")
    config = load_config(
        "lungs", overrides=["run.modes=[cascade, gt_sam]", "run.max_error_share=1"]
    )
    fake_run.status = {0: "error"}
    jobs = []
    fake_run.after = jobs.append
    given = {"references": str(tmp_path / "masks"), "prompts": str(tmp_path / "boxes.csv")}
    label(tmp_path, tmp_path / "out", config, quiet=True, include=["*/in/*"], **given)
    retry(tmp_path / "out", overrides=["run.max_error_share=1"], quiet=True)
    for job in jobs:
        image = ImageRef(str(tmp_path / "2" / "in" / "0.png"))
        with pytest.raises(ImageError, match="2 images have the name of its prompts"):
            job.prompts.find(image)
        assert job.references.named(image) is None
        assert "2 images have the name" in job.references.ambiguity(image)
    assert len(jobs) == 2


def test_prompts_of_no_image_write_nothing(job, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\n9.png,1,1,5,5\n")
    with pytest.raises(InputError, match=r"no image of the input has a prompt .* of 9.png\)"):
        job(prompts=str(tmp_path / "boxes.csv"))
    assert not (tmp_path / "out").exists()


def test_an_output_of_the_version_before_is_resumed_in_that_version(job, fake_run, tmp_path):
    """Also by --extend and retry: all shards of an output have the same columns."""
    fake_run.status = {0: "error"}
    job()
    run = tmp_path / "out" / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_bytes()), "schema_version": 2}))
    for file in (*(tmp_path / "out" / "shards").iterdir(), tmp_path / "out" / "summary.json"):
        file.unlink()
    add_image(tmp_path, 4)
    job(extend=True)
    fake_run.status = {}
    summary = retry(tmp_path / "out", quiet=True)
    assert (summary.schema_version, summary.status) == (2, {"empty": 5})
    files = sorted((tmp_path / "out" / "shards").iterdir())
    assert [pq.read_schema(file).equals(label_schema(2)) for file in files] == [True] * 3
