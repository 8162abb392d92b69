"""A consensus is an ordinary output: every image once, with the reason of what is not labelled."""

from __future__ import annotations

import io
import json
import tarfile

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import salip_ray.consensus.job as consensus_job
from salip_ray import errors
from salip_ray.cli import app
from salip_ray.consensus.job import make_consensus
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output.cells import read_mask
from salip_ray.output.masks import decode_png
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify import verify
from salip_ray.pipeline.retry_errors import retry
from salip_ray.sources.locations import image_id
from tests.conftest import check_exactly_once, tree
from tests.unit.consensus.runs import SIZE, block, write_run

HIGH, LOW = block((0, 4)), block((2, 6))


def agree(*runs, out, **options):
    return make_consensus([str(run) for run in runs], str(out), quiet=True, **options)


def rows_of(out):
    rows = LabelOutput.open(str(out)).rows()
    return {row["uri"].rpartition("/")[2]: row for row in rows}


def masks_of(row):
    masks = [read_mask(cell) for cell in row["masks"]]
    return {(mask.method, mask.label): mask for mask in masks}


def label_map_of(out, name, shard=0):
    data = (out / "masks" / f"part-{shard:05d}.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return decode_png(tar.extractfile(f"{image_id(f'/in/{name}')}.mask.png").read())


@pytest.fixture
def two(tmp_path):
    """Two runs over five images, cut into shards of other sizes."""
    names = [f"{n}.png" for n in range(5)]
    one = write_run(tmp_path / "one", {name: {"lungs": HIGH} for name in names}, per_shard=2)
    other = write_run(tmp_path / "other", {name: {"lungs": LOW} for name in names}, per_shard=3)
    return one, other


def test_the_output_is_sound_and_has_every_image_once(two, tmp_path):
    summary = agree(*two, out=tmp_path / "out")
    assert (summary.images, summary.shards, summary.status) == (5, 3, {"ok": 5})
    check_exactly_once(tmp_path / "out", 5)
    checked = verify(str(tmp_path / "out"))
    assert checked.problems == ()
    assert checked.label_maps == 5


def test_disputed_pixels_are_ignored_and_the_agreement_is_the_confidence(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    masks = masks_of(rows_of(tmp_path / "out")["0.png"])
    agreed, disputed = masks["cascade", "lungs"], masks["disagreement", "lungs"]
    assert np.array_equal(agreed.mask, HIGH & LOW)
    assert np.array_equal(disputed.mask, HIGH ^ LOW)
    assert agreed.confidence == pytest.approx(0.5)
    assert disputed.confidence is None
    labels = label_map_of(tmp_path / "out", "0.png")
    assert np.array_equal(labels == 1, HIGH & LOW)
    assert np.array_equal(labels == 255, HIGH ^ LOW)


def test_training_ignores_disputed_pixels(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    labels = PseudoLabels(str(tmp_path / "out"), min_confidence=0.4)
    assert labels.may_ignore
    read = labels.label_map(labels.entries[0])
    assert np.array_equal(read, label_map_of(tmp_path / "out", "0.png"))
    with pytest.raises(errors.InputError, match="confidence is below the limit"):
        PseudoLabels(str(tmp_path / "out"), min_confidence=0.6)


def test_a_verification_sees_a_label_map_without_its_disputed_pixels(two, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "salip_ray.consensus.rows.label_map", lambda *_, **__: np.zeros(SIZE, np.uint8)
    )
    agree(*two, out=tmp_path / "out")
    problems = verify(str(tmp_path / "out")).problems
    assert "its label map differs from the masks of its row" in problems[0].what


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_a_killed_consensus_resumes_with_the_same_bytes(two, tmp_path, monkeypatch, committed):
    agree(*two, out=tmp_path / "whole")
    commit, written = consensus_job.commit_shard, []

    def killed(store, shard, *rest, **options):
        if len(written) == committed:
            store.write(f"masks/part-{shard:05d}.tar", b"of a writer that was killed")
            raise KeyboardInterrupt
        written.append(shard)
        return commit(store, shard, *rest, **options)

    monkeypatch.setattr(consensus_job, "commit_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        agree(*two, out=tmp_path / "out")
    monkeypatch.setattr(consensus_job, "commit_shard", commit)
    assert agree(*two, out=tmp_path / "out").images_in_run == 5 - 2 * committed
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert verify(str(tmp_path / "out")).problems == ()


def test_a_complete_consensus_is_not_written_again(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert agree(*two, out=tmp_path / "out").images_in_run == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}


def test_other_runs_are_refused_by_name(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    third = write_run(tmp_path / "third", {f"{n}.png": {"lungs": LOW} for n in range(5)})
    with pytest.raises(errors.ResumeError, match=r"consensus\.runs\.2\.uri was"):
        agree(two[0], third, out=tmp_path / "out")


def test_a_run_that_has_changed_is_refused(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    seal = two[1] / "seal.json"
    seal.write_bytes(seal.read_bytes() + b"\n")
    with pytest.raises(errors.ResumeError, match=r"consensus\.runs\.2\.digest was"):
        agree(*two, out=tmp_path / "out")


# ------------------------------------------------------------------- what the runs do not share


def test_images_that_two_runs_cannot_label_become_error_rows_with_the_reason(tmp_path):
    one = {"both.png": {"lungs": HIGH}, "bad.png": "no such file", "mine.png": {"lungs": HIGH}}
    one |= {"size.png": {"lungs": HIGH}, "nobody.png": "cut off"}
    other = {"both.png": {"lungs": HIGH}, "bad.png": {"lungs": HIGH}, "yours.png": {"lungs": HIGH}}
    other |= {"size.png": {"lungs": block((0, 4), size=(6, 9))}, "nobody.png": "no answer"}
    runs = write_run(tmp_path / "one", one), write_run(tmp_path / "other", other)
    with pytest.raises(errors.JobError, match=r"5 of 6 images .* are error rows"):
        agree(*runs, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"both.png"}
    reasons = {name: row["error"]["message"] for name, row in rows.items() if row["error"]}
    two_needed = "runs labelled the image, two are needed"
    assert reasons == {
        "bad.png": f"1 of 2 {two_needed}: run 1 failed in fetch: no such file",
        "mine.png": f"1 of 2 {two_needed}: run 2 does not have it",
        "nobody.png": f"none of 2 {two_needed}: run 1 failed in fetch: cut off; "
        "run 2 failed in fetch: no answer",
        "size.png": "the image has other sizes (height x width): 6 x 8 in run 1, 6 x 9 in run 2",
        "yours.png": f"1 of 2 {two_needed}: run 1 does not have it",
    }
    assert verify(str(tmp_path / "out")).problems == ()


def test_a_file_that_changed_between_the_runs_becomes_an_error_row(tmp_path, capsys):
    images = {"a.png": {"lungs": HIGH}, "b.png": {"lungs": HIGH}, "c.png": {"lungs": HIGH}}
    sizes = ({"a.png": 10, "c.png": 5}, {"a.png": 10, "c.png": None}, {"b.png": 2, "c.png": 7})
    runs = [
        write_run(
            tmp_path / str(n), images, bytes_of=of_run, settings=[f"image.long_side={64 + n}"]
        )
        for n, of_run in enumerate(sizes)
    ]
    with pytest.raises(errors.JobError, match="3 of 3 images"):
        make_consensus(list(map(str, runs)), str(tmp_path / "out"))
    assert "3 files changed between the runs and become error rows" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out")
    assert all("has another size or etag" in row["error"]["message"] for row in rows.values())
    assert agree(*runs[:2], out=tmp_path / "two").status == {"ok": 3}


@pytest.mark.parametrize(
    "damage", [{"counts": "oo1"}, {"counts": "0"}, {"counts": ""}, {"size": [8, 6]}]
)
def test_a_damaged_mask_of_a_run_is_named(two, tmp_path, damage):
    file = two[1] / "shards" / "part-00000.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1]["masks"][0]["rle"].update(damage)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    with pytest.raises(errors.OutputError, match=r"other is damaged: row 1 of part-00000\.parquet"):
        agree(*two, out=tmp_path / "out")
    (tmp_path / "masks").mkdir()
    for command in (["evaluate", str(two[1]), str(tmp_path / "masks")], ["report", str(two[1])]):
        for n in range(5):
            cv2.imwrite(str(tmp_path / "masks" / f"{n}.png"), HIGH.astype(np.uint8))
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, SystemExit | None), (command, done.exception)


def test_manifests_that_are_stored_elsewhere_stay_out_of_the_output(tmp_path):
    images = {"a.png": {"lungs": HIGH}}
    one = write_run(tmp_path / "one", images, manifest=tmp_path / "one.parquet")
    other = write_run(tmp_path / "other", {"a.png": {"lungs": LOW}})
    with pytest.raises(errors.ConfigError, match="1 run keeps its manifest elsewhere, but 0"):
        agree(one, other, out=tmp_path / "out")
    known = {"run_manifests": [str(tmp_path / "one.parquet")]}
    with pytest.raises(errors.ConfigError, match="another location for its own: --manifest FILE"):
        agree(one, other, out=tmp_path / "out", **known)
    assert not (tmp_path / "out").exists()
    words = ["consensus", *map(str, (one, other, tmp_path / "out"))]
    words += ["--run-manifest", str(tmp_path / "one.parquet")]
    words += ["--manifest", str(tmp_path / "out.parquet")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    assert verify(str(tmp_path / "out"), manifest=str(tmp_path / "out.parquet")).problems == ()
    with pytest.raises(errors.ResumeError):
        agree(other, one, out=tmp_path / "out", **known, manifest=str(tmp_path / "out.parquet"))


def test_a_run_that_is_already_in_another_one_is_noted(two, tmp_path, capsys):
    agree(*two, out=tmp_path / "first")
    make_consensus([str(two[0]), str(tmp_path / "first")], str(tmp_path / "out"))
    shown = " ".join(capsys.readouterr().err.split())
    assert f"first is a consensus of {two[0]}, which so has two votes" in shown


def test_two_of_three_runs_are_enough(tmp_path):
    runs = [
        write_run(tmp_path / "one", {"a.png": {"lungs": HIGH}}),
        write_run(tmp_path / "two", {"a.png": "cut off"}),
        write_run(tmp_path / "three", {"a.png": {"lungs": HIGH}, "b.png": {"lungs": LOW}}),
        write_run(tmp_path / "four", {"b.png": {"lungs": LOW}}),
    ]
    assert agree(*runs, out=tmp_path / "out").status == {"ok": 2}


def test_a_label_without_majority_leaves_the_class_empty_with_the_reason(tmp_path):
    one = write_run(tmp_path / "one", {"a.png": {"lungs": block((0, 3))}, "b.png": {}})
    other = write_run(tmp_path / "other", {"a.png": {}, "b.png": {}})
    agree(one, other, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    reasons = {name: row["outcomes"][0]["reason"] for name, row in rows.items()}
    assert reasons == {
        "a.png": "1 of 2 runs have a label, without a majority",
        "b.png": "no run has a label (run 1: too few candidates)",
    }
    assert [row["status"] for row in rows.values()] == ["empty", "empty"]
    assert np.array_equal(label_map_of(tmp_path / "out", "a.png") == 255, block((0, 3)))
    assert verify(str(tmp_path / "out")).problems == ()


def test_a_class_of_one_run_stays_empty_and_its_pixels_are_ignored(tmp_path, capsys):
    heart = block((4, 6))
    one = write_run(tmp_path / "one", {"a.png": {"lungs": block((0, 3))}})
    both = {"heart": (heart, 30.0), "lungs": block((0, 3))}
    other = write_run(tmp_path / "other", {"a.png": both}, classes=("heart", "lungs"))
    make_consensus([str(one), str(other)], str(tmp_path / "out"))
    assert "class 'heart' is in run 2 only, so it stays empty" in capsys.readouterr().err
    assert [spec.label for spec in LabelOutput.open(str(tmp_path / "out")).classes] == [
        "lungs",
        "heart",
    ]
    row = rows_of(tmp_path / "out")["a.png"]
    outcomes = {item["label"]: (item["outcome"], item["reason"]) for item in row["outcomes"]}
    assert outcomes["lungs"] == ("labelled", "")
    assert outcomes["heart"] == ("empty", "only run 2 labels this class")
    assert np.array_equal(label_map_of(tmp_path / "out", "a.png") == 255, heart)


def test_a_class_that_wins_a_pixel_is_not_hidden_by_the_dispute_about_another(tmp_path):
    heart = (block((2, 4)), 30.0)
    images = [{"a.png": {"lungs": lungs, "heart": heart}} for lungs in (HIGH, block((0, 2)))]
    runs = [
        write_run(tmp_path / name, run, classes=("lungs", "heart"))
        for name, run in zip(("one", "other"), images, strict=True)
    ]
    agree(*runs, out=tmp_path / "out")
    labels = label_map_of(tmp_path / "out", "a.png")
    assert np.array_equal(labels, 1 * block((0, 2)) + 2 * block((2, 4)))


def test_names_that_one_run_hides_stay_hidden(tmp_path):
    one = write_run(tmp_path / "one", {"a.png": {"lungs": HIGH}, "b.png": "/in/b.png is cut"})
    other = write_run(
        tmp_path / "other",
        {"a.png": {"lungs": HIGH}, "b.png": {"lungs": HIGH}},
        settings=["privacy.hash_uris=true"],
    )
    with pytest.raises(errors.JobError):
        agree(one, other, out=tmp_path / "out")
    rows = list(LabelOutput.open(str(tmp_path / "out")).rows())
    assert {row["uri"] for row in rows} == {f"id:{row['image_id']}" for row in rows}
    assert "/in/b.png" not in json.dumps(rows, default=str)


def test_images_used_to_tune_a_run_are_recorded(tmp_path):
    names = {"a.png": {"lungs": HIGH}, "b.png": {"lungs": HIGH}}
    tuned = image_id("/in/b.png")
    one = write_run(tmp_path / "one", names)
    other = write_run(tmp_path / "other", names, settings=[f"task.tuned_on=[{tuned}]"])
    agree(one, other, out=tmp_path / "out")
    assert LabelOutput.open(str(tmp_path / "out")).tuned_on == {tuned}


# --------------------------------------------------------------------------------- refused runs


def test_runs_that_cannot_be_compared_are_refused(two, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(errors.ConfigError, match="needs two runs or more"):
        agree(two[0], out=out)
    with pytest.raises(errors.ConfigError, match="are the same run"):
        agree(two[0], two[0], out=out)
    elsewhere = write_run(tmp_path / "elsewhere", {"z.png": {"lungs": HIGH}})
    with pytest.raises(errors.InputError, match="no image in common"):
        agree(two[0], elsewhere, out=out)
    brain = write_run(tmp_path / "brain", {"0.png": {"brain": HIGH}}, classes=("brain",))
    with pytest.raises(errors.ConfigError, match="no two runs have a class in common"):
        agree(two[0], brain, out=out)
    sagittal = ["image.axis=sagittal"]
    sideways = write_run(tmp_path / "side", {"0.png": {"lungs": HIGH}}, settings=sagittal)
    with pytest.raises(errors.ConfigError, match=r"image\.axis is axial in .*sagittal in"):
        agree(two[0], sideways, out=out)
    unfinished = write_run(tmp_path / "half", {"0.png": {"lungs": HIGH}}, finish=False)
    with pytest.raises(errors.OutputError, match="half is not finished"):
        agree(two[0], unfinished, out=out)
    with pytest.raises(errors.OutputError, match="is in the run"):
        agree(*two, out=two[1] / "agreed")
    with pytest.raises(errors.OutputError, match="is not empty"):
        agree(*two, out=tmp_path)
    assert not out.exists()


def test_a_consensus_is_not_retried_with_a_recipe(two, tmp_path):
    agree(*two, out=tmp_path / "out")
    with pytest.raises(errors.OutputError, match="is a consensus: retry its runs"):
        retry(tmp_path / "out", quiet=True)


def test_command(two, tmp_path):
    words = ["consensus", *map(str, two), str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "out")]).exit_code == 0
    done = CliRunner().invoke(app, ["consensus", str(two[0]), str(tmp_path / "new")])
    assert done.exit_code == 2
    assert "needs two runs or more" in done.output
    done = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
