"""The whole job on a local Ray: its files, bad images, resumes and retries."""

from __future__ import annotations

import contextlib
import json
import tarfile
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray  # noqa: F401  (has psutil on its path)

import psutil  # isort: skip

from salip_ray import label
from salip_ray.errors import ConfigError, InputError, JobError, OutputError, ResumeError
from salip_ray.output.masks import decode_png, decode_rle
from salip_ray.schema import LABEL_SCHEMA
from tests.conftest import check_exactly_once, tree

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def labelled(images, tmp_path_factory, local_ray):
    from salip_ray import load_config
    from tests.conftest import SMALL

    output = tmp_path_factory.mktemp("labelled") / "out"
    summary = label(images, output, load_config("lungs", overrides=SMALL), quiet=True)
    return output, summary


def test_every_image_is_one_row_and_bad_ones_have_a_reason(labelled, images):
    output, summary = labelled
    check_exactly_once(output, 11)
    table = pq.read_table(output / "shards")
    assert table.schema.equals(LABEL_SCHEMA)
    rows = {row["uri"].rsplit("/", 1)[-1]: row for row in table.to_pylist()}
    assert {name for name, row in rows.items() if row["status"] == "error"} == {
        "cut.png",
        "empty.png",
    }
    assert rows["empty.png"]["error"]["stage"] == "decode"
    assert "truncated" in rows["cut.png"]["error"]["message"]
    assert rows["cut.png"]["masks"] in (None, [])
    assert summary.status["error"] == 2
    assert summary.images == 11


def monitors():
    """Return the process ids of the monitors of this session."""
    processes = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::Monitor" in process.cmdline():
                processes.append(process.pid)
    return processes


def test_a_job_leaves_no_actor_in_a_long_session(labelled):
    deadline = time.monotonic() + 120
    while monitors() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not monitors()


def test_label_maps_are_the_masks_of_the_rows(labelled):
    output, _ = labelled
    checked = 0
    for path in sorted(output.glob("shards/*.parquet")):
        with tarfile.open(output / "masks" / f"{path.stem}.tar") as archive:
            pngs = {
                name.split(".")[0]: decode_png(archive.extractfile(name).read())
                for name in archive.getnames()
                if name.endswith(".mask.png")
            }
        for row in pq.read_table(path).to_pylist():
            if row["status"] == "error":
                assert row["image_id"] not in pngs
                continue
            expected = np.zeros((row["height"], row["width"]), bool)
            for mask in row["masks"]:
                expected |= decode_rle(mask["rle"])
            np.testing.assert_array_equal(pngs[row["image_id"]] > 0, expected)
            checked += bool(expected.any())
    assert checked >= 5


def test_run_json_says_what_made_it(labelled):
    run = json.loads((labelled[0] / "run.json").read_text())
    assert run["schema_version"] == 3
    assert run["fingerprint"]["recipe"]["propose"]["points_per_side"] == 2
    assert {"sam", "clip"} <= set(run["fingerprint"]["weights"])


def test_a_second_run_writes_the_same_bytes_whatever_the_pools(
    labelled, images, small_config, tmp_path
):
    apart = small_config("pools.propose.size=2", "pools.fused=false")
    label(images, tmp_path / "again", apart, quiet=True)
    assert tree(tmp_path / "again") == tree(labelled[0])


def test_a_lost_shard_alone_is_made_again(labelled, images, small_config, tmp_path):
    import shutil

    output = tmp_path / "out"
    shutil.copytree(labelled[0], output)
    (output / "shards" / "part-00001.parquet").unlink()
    untouched = (output / "shards" / "part-00000.parquet").stat().st_mtime_ns
    label(images, output, small_config(), quiet=True)
    assert tree(output) == tree(labelled[0])
    assert (output / "shards" / "part-00000.parquet").stat().st_mtime_ns == untouched


def test_a_resume_with_another_recipe_is_refused(labelled, images, small_config):
    with pytest.raises(ResumeError, match="max_area"):
        label(images, labelled[0], small_config("task.max_area=0.3"), quiet=True)


def test_a_grown_input_goes_into_new_shards(labelled, images, small_config, tmp_path):
    import shutil

    grown, output = tmp_path / "grown", tmp_path / "out"
    grown.mkdir()
    for index in (0, 2, 4, 6, 8):
        shutil.copy2(images / f"{index}.png", grown / f"{index}.png")
    label(grown, output, small_config(), quiet=True)
    before = tree(output)
    for index in (1, 3, 5):
        shutil.copy2(images / f"{index}.png", grown / f"{index}.png")
    with pytest.raises(ResumeError, match=r"3 images added.*--extend"):
        label(grown, output, small_config(), quiet=True)
    # Of the old shards the short last one is missing, too: two short shards in one go.
    (output / "shards" / "part-00001.parquet").unlink()
    label(grown, output, small_config(), quiet=True, extend=True)
    check_exactly_once(output, 8)
    after = tree(output)
    assert {name: after[name] for name in before if name != "manifest.parquet"} == {
        name: data for name, data in before.items() if name != "manifest.parquet"
    }
    assert label(grown, output, small_config(), quiet=True).images == 8
    assert not (output / "lease.json").exists()


def test_retry_labels_only_error_rows(images, small_config, tmp_path):
    import shutil

    from salip_ray.output.verify import verify
    from salip_ray.pipeline import retry

    inputs, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(images, inputs, ignore=shutil.ignore_patterns("[a-z]*"))
    listed = tmp_path / "manifest.csv"  # names no sizes: files may come later
    listed.write_text("uri\n" + "".join(f"in/{index}.png\n" for index in range(9)))
    for index in (1, 2, 8):
        (inputs / f"{index}.png").rename(tmp_path / f"{index}.png")
    names = {"manifest": str(tmp_path / "elsewhere" / "names.parquet")}
    summary = label(listed, output, small_config(), quiet=True, **names)
    assert summary.status["error"] == 3
    for index in (1, 2, 8):
        (tmp_path / f"{index}.png").rename(inputs / f"{index}.png")
    with pytest.raises(ResumeError, match="again with --manifest"):
        retry(output, quiet=True)
    wrong = tmp_path / "wrong.parquet"
    pq.write_table(pq.read_table(names["manifest"]).slice(1), wrong)
    with pytest.raises(OutputError, match=r"wrong\.parquet is not the manifest of"):
        retry(output, quiet=True, manifest=str(wrong))
    assert "error" not in retry(output, quiet=True, **names).status
    calm = {"manifest": str(tmp_path / "calm.parquet")}
    label(listed, tmp_path / "calm", small_config(), quiet=True, **calm)
    assert tree(output) == tree(tmp_path / "calm")
    assert verify(str(output), **names).problems == ()
    with pytest.raises(ConfigError, match="only pools, run and"):
        retry(output, overrides=["propose.points_per_side=3"], **names)


def test_too_many_errors_fail_the_job_after_it_has_finished(images, small_config, tmp_path):
    with pytest.raises(JobError, match="2 of 11 images"):
        label(images, tmp_path / "out", small_config("run.max_error_share=0.1"), quiet=True)
    check_exactly_once(tmp_path / "out", 11)


def test_baselines_are_recorded_next_to_cascade(images, small_config, tmp_path):
    references = tmp_path / "references"
    references.mkdir()
    import cv2

    for path in images.glob("[0-9].png"):
        image = cv2.imread(str(path))
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[10:40, 8:30] = 255
        cv2.imwrite(str(references / path.name), mask)
    config = small_config("run.modes=[cascade, unprompted, gt_sam]")
    label(images, tmp_path / "out", config, references=str(references), quiet=True)
    rows = pq.read_table(tmp_path / "out" / "shards").to_pylist()
    for row in (row for row in rows if row["status"] != "error"):
        methods = {mask["method"] for mask in row["masks"]}
        assert {"unprompted_confident", "unprompted_largest", "gt_sam"} <= methods


def test_impossible_jobs_are_refused_before_anything_is_written(images, small_config, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        label(tmp_path / "nowhere", tmp_path / "out", small_config())
    with pytest.raises(ConfigError, match="reference"):
        label(images, tmp_path / "out", small_config("run.modes=[gt_sam]"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="theirs"):
        label(images, tmp_path / "theirs", small_config())
    assert not (tmp_path / "out").exists()
