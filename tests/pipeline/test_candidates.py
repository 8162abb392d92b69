"""A job with masks made elsewhere as candidates: which one a label follows, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from salip_ray import Cascade, PseudoLabels, label, label_dataset, load_config
from salip_ray.cascade.geometry import component_masks, overlap
from salip_ray.datasets.exports.png import export as export_png
from salip_ray.errors import ConfigError, InputError, ResumeError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output.masks import decode_rle
from salip_ray.output.verify import verify
from salip_ray.pipeline.retry_errors import retry
from tests.conftest import check_exactly_once, tree
from tests.ray_cluster import RayCluster

SETTINGS = (
    "propose.points_per_side=2",  # SAM misses the lungs of MISSED
    "run.rows_per_shard=2",
    "run.max_error_share=0.5",
    "pools.propose.size=1",
)
SIZE = 192
MISSED, EASY, BROKEN, WITHOUT = 23, 1, 2, 0
BAD = np.s_[5:60, 5:40]  # in a corner, next to the body


def lungs(index):
    return make_phantom("chest_xray", index, bank="tune", size=SIZE).mask("lungs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four phantoms; a good, a bad and a broken mask of three of them, and one of no image."""
    folder = tmp_path_factory.mktemp("candidates")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in (MISSED, EASY, BROKEN, WITHOUT):
        image = make_phantom("chest_xray", index, bank="tune", size=SIZE).image
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image[..., ::-1])
    # Another tool's values: they need not be class ids.
    cv2.imwrite(str(folder / "masks" / f"{MISSED}.png"), lungs(MISSED).astype(np.uint8) * 77)
    bad = np.zeros(lungs(EASY).shape, np.uint8)
    bad[BAD] = 1
    cv2.imwrite(str(folder / "masks" / f"{EASY}.png"), bad)
    cv2.imwrite(str(folder / "masks" / "lost.png"), bad)
    (folder / "masks" / f"{BROKEN}.png").write_bytes(b"no PNG")
    return folder


def config_of(*overrides, task="lungs"):
    return load_config(task, overrides=[*SETTINGS, *overrides])


def rows_of(output):
    rows = pq.read_table(output / "shards").to_pylist()
    return {int(row["uri"].rpartition("/")[2].removesuffix(".png")): row for row in rows}


def dice(row, index):
    cells = row["masks"]
    return overlap(decode_rle(cells[0]["rle"]), lungs(index)) if cells else 0.0


@pytest.fixture(scope="module")
def labelled(folder, local_ray):
    output, masks = folder / "out", str(folder / "masks")
    label(folder / "images", output, config_of(), candidates=masks, quiet=True)
    return output


def test_a_label_follows_the_candidate_if_the_proposals_miss_the_organ(folder, labelled, tmp_path):
    label(folder / "images", tmp_path / "alone", config_of(), quiet=True)
    alone, row = rows_of(tmp_path / "alone")[MISSED], rows_of(labelled)[MISSED]
    assert dice(alone, MISSED) < 0.8
    assert dice(row, MISSED) > 0.9
    assert sorted(row["masks"][0]["candidate_ids"]) == [-2, -1]
    chosen = [item for item in row["ranking"] if item["retrieved"]]
    assert all(np.isnan(item["predicted_iou"]) for item in chosen)
    assert row["n_candidates"] == alone["n_candidates"] + 2
    assert row["masks"][0]["confidence"] > 0.5


def test_a_bad_candidate_loses_against_those_of_sam(labelled):
    row = rows_of(labelled)[EASY]
    assert dice(row, EASY) > 0.9
    assert min(row["masks"][0]["candidate_ids"]) >= 0


def test_each_image_has_one_row_and_a_broken_mask_a_reason(labelled):
    check_exactly_once(labelled, 4)
    rows = rows_of(labelled)
    assert rows[BROKEN]["error"]["stage"] == "candidates"
    assert f"{BROKEN}.png" in rows[BROKEN]["error"]["message"]
    assert rows[WITHOUT]["status"] == "ok"
    assert verify(str(labelled)).problems == ()


def test_the_candidates_belong_to_the_job(folder, labelled, capsys):
    before = tree(labelled)
    label(folder / "images", labelled, config_of(), candidates=str(folder / "masks"))
    assert tree(labelled) == before
    shown = capsys.readouterr().err
    assert "1 image of the candidates is not in the input (the first: " in shown
    recorded = json.loads((labelled / "run.json").read_text())["fingerprint"]["candidates"]
    assert recorded["uri"] == str(folder / "masks")
    with pytest.raises(ResumeError, match="candidates was"):
        label(folder / "images", labelled, config_of(), quiet=True)
    path = folder / "masks" / f"{EASY}.png"
    original = path.read_bytes()
    cv2.imwrite(str(path), np.ones((SIZE, SIZE), np.uint8))
    with pytest.raises(ResumeError, match="was made with other candidates"):
        retry(labelled, quiet=True)
    path.write_bytes(original)


def test_a_retry_of_a_repaired_mask_needs_a_new_output(folder, labelled, tmp_path):
    shutil.copytree(folder / "masks", tmp_path / "masks")
    (tmp_path / "masks" / f"{BROKEN}.png").unlink()
    masks = str(tmp_path / "masks")
    with pytest.raises(ResumeError, match="candidates"):
        label(folder / "images", labelled, config_of(), candidates=masks, quiet=True)


def test_masks_of_another_run_are_exported_first(folder, labelled, tmp_path):
    with pytest.raises(InputError, match="is an output: export its masks with salip-ray export"):
        label(folder / "images", tmp_path / "o", config_of(), candidates=str(labelled), quiet=True)
    export_png(PseudoLabels(str(labelled)), str(tmp_path / "masks"))
    output, masks = tmp_path / "out", str(tmp_path / "masks")
    label(folder / "images", output, config_of(), candidates=masks, quiet=True)
    assert dice(rows_of(output)[MISSED], MISSED) > 0.9
    assert rows_of(output)[BROKEN]["status"] == "ok"


def test_clip_chooses_the_classes_of_boxes_without_any(folder, tmp_path, local_ray):
    heart = make_phantom("chest_xray", MISSED, bank="tune", size=SIZE).mask("heart")
    lines = ["image,x0,y0,x1,y1"]
    for mask in (*component_masks(lungs(MISSED)), heart):
        rows, columns = np.nonzero(mask)
        box = columns.min(), rows.min(), columns.max(), rows.max()
        lines.append(f"{MISSED}.png,{','.join(map(str, box))}")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(lines))
    chest = config_of("propose.model=none", "run.max_error_share=1", task="chest")
    with pytest.raises(InputError, match=r"as --candidates with --set propose\.model=none"):
        label(folder / "images", tmp_path / "no", config_of(task="chest"), prompts=str(boxes))
    output = tmp_path / "out"
    label(folder / "images", output, chest, candidates=str(boxes), quiet=True)
    rows = rows_of(output)
    ids = {mask["label"]: sorted(mask["candidate_ids"]) for mask in rows[MISSED]["masks"]}
    assert ids == {"lungs": [-2, -1], "heart": [-3]}
    assert rows[MISSED]["n_candidates"] == 3
    assert {o["reason"] for o in rows[EASY]["outcomes"]} == {"no candidate is given"}
    assert verify(str(output)).problems == ()
    apart = ("pools.refine.size=1", "pools.refine.cpus=0.5")
    chest = load_config("chest", overrides=[*SETTINGS, "propose.model=none", *apart])
    label(folder / "images", tmp_path / "apart", chest, candidates=str(boxes), quiet=True)
    assert tree(tmp_path / "apart") == tree(output)


def test_a_cascade_and_a_dataset_take_candidates_too(folder, labelled):
    import ray

    image = make_phantom("chest_xray", MISSED, bank="tune", size=SIZE).image
    row = rows_of(labelled)[MISSED]
    parts = component_masks(lungs(MISSED))
    (mask,) = Cascade(config_of(), device="cpu")(image, candidates=parts).masks
    assert list(mask.candidate_ids) == row["masks"][0]["candidate_ids"]
    np.testing.assert_array_equal(mask.mask, decode_rle(row["masks"][0]["rle"]))
    made = lungs(MISSED).astype(np.uint8)
    items = [{"image": image, "made": each} for each in (made, 0 * made)]
    rows = label_dataset(ray.data.from_items(items), config_of(), candidates="made").take_all()
    alone, given = sorted(rows, key=lambda each: each["n_candidates"])
    assert list(given["masks"][0]["candidate_ids"]) == row["masks"][0]["candidate_ids"]
    assert len(alone["masks"]) == 0  # SAM misses its lungs


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["propose.model=prompts"], "give one of both"),
        (["run.modes=[unprompted]"], "no retriever ranks the candidates"),
        (["run.modes=[cascade, unprompted]", "propose.model=none"], "which needs proposals"),
    ],
)
def test_jobs_that_cannot_use_candidates_are_refused(folder, tmp_path, overrides, problem):
    masks = str(folder / "masks")
    prompts = masks if "propose.model=prompts" in overrides else None
    config = config_of(*overrides)
    given = {"prompts": prompts, "candidates": masks}
    with pytest.raises(ConfigError, match=problem):
        label(folder / "images", tmp_path / "out", config, **given, quiet=True)


def test_a_job_that_proposes_nothing_needs_candidates(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"give the candidates \(--candidates\)"):
        label(folder / "images", tmp_path / "out", config_of("propose.model=none"), quiet=True)
    points = tmp_path / "points.csv"
    points.write_text("image,x,y\n0.png,5,5")
    with pytest.raises(InputError, match="have points: give boxes or masks"):
        label(folder / "images", tmp_path / "out", config_of(), candidates=str(points), quiet=True)


@pytest.mark.slow
def test_a_killed_job_with_candidates_resumes_to_the_same_bytes(folder, tmp_path):
    with RayCluster(cpus=4) as cluster:
        cluster.env["RAY_ADDRESS"] = cluster.gcs_address

        def command(output):
            settings = (part for text in SETTINGS for part in ("--set", text))
            arguments = (folder / "images", output, "--candidates", folder / "masks", *settings)
            words = (sys.executable, "-m", "salip_ray", "label", "--config", "lungs", *arguments)
            return list(map(str, words))

        assert cluster.run(*command(tmp_path / "whole")).returncode == 0
        output = tmp_path / "out"
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command(output), env=cluster.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not list(output.glob("shards/*.parquet")) and process.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert cluster.run(*command(output)).returncode == 0
        check_exactly_once(output, 4)
        assert tree(output) == tree(tmp_path / "whole")
