"""A job whose boxes are given: SAM's masks of them, and rows that say why there are none."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from salip_ray import Cascade, label, load_config
from salip_ray.cascade.geometry import reference_boxes
from salip_ray.cascade.prompts import innermost
from salip_ray.consensus.job import make_consensus
from salip_ray.errors import ConfigError, ImageError, JobError, ResumeError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output.masks import decode_rle
from salip_ray.output.verify import verify
from salip_ray.pipeline.decoding.annotations import find_prompts
from salip_ray.pipeline.inputs import open_prompts
from salip_ray.pipeline.retry_errors import retry
from salip_ray.schema import ImageRef
from salip_ray.sources.formats.stack import Stack
from tests.conftest import SMALL, check_exactly_once, tree

pytestmark = pytest.mark.usefixtures("local_ray")

# The bundled CLIP was not taught tumours, and is not needed.
TASK = {
    "task": {"name": "own", "prompts": {"lungs": ["both lungs"], "tumour": ["a tumour"]}},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four phantoms with masks of two classes, and two images without."""
    folder = tmp_path_factory.mktemp("prompted")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(6):
        phantom = make_phantom("chest_xray", index, bank="tune", size=90 + index)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), phantom.image[..., ::-1])
        if index < 4:
            ids = np.where(phantom.mask("heart"), 2, phantom.mask("lungs")).astype(np.uint8)
            cv2.imwrite(str(folder / "masks" / f"{index}.png"), ids)
    return folder


def coco_of(folder, name, **more):
    """Write the boxes of the masks, and ``more`` ones by image, as COCO."""
    annotations, files = [], [f"{index}.png" for index in range(6)] + ["lost.png"]
    for index in range(4):
        ids = cv2.imread(str(folder / "masks" / f"{index}.png"), cv2.IMREAD_UNCHANGED)
        for category in (1, 2):
            for x0, y0, x1, y1 in reference_boxes(ids == category):
                box = [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
                annotations.append({"image_id": index, "category_id": category, "bbox": box})
    for image, box in more.items():
        identity = files.index(f"{image}.png")
        annotations.append({"image_id": identity, "category_id": 1, "bbox": box})
    content = {
        "images": [{"id": n, "file_name": file} for n, file in enumerate(files)],
        "categories": [{"id": 1, "name": "lungs"}, {"id": 2, "name": "tumour"}],
        "annotations": annotations,
    }
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)


def config_of(*overrides):
    return load_config(TASK, overrides=[*SMALL, *overrides])


def rows_of(output):
    rows = pq.read_table(output / "shards").to_pylist()
    return {row["uri"].rpartition("/")[2].removesuffix(".png"): row for row in rows}


@pytest.fixture(scope="module")
def prompted(images, local_ray):
    """An output whose fifth image has no box, and whose sixth has one outside of it."""
    boxes = coco_of(images, "boxes.json", **{"5": [500, 10, 20, 20], "lost": [1, 1, 5, 5]})
    output = images / "out"
    label(images / "images", output, config_of(), prompts=boxes, quiet=True)
    return output


def test_boxes_of_references_give_the_masks_of_gt_sam(images, prompted):
    best = images / "best"
    config = config_of("run.modes=[gt_sam]", "propose.model=sam")
    label(images / "images", best, config, references=str(images / "masks"), quiet=True)
    wanted, rows = rows_of(best), rows_of(prompted)
    for index in range(4):
        ours, theirs = rows[f"{index}"]["masks"], wanted[f"{index}"]["masks"]
        assert [m["label"] for m in ours] == ["lungs", "tumour"]
        assert [m["method"] for m in ours] == ["cascade"] * 2
        for name in ("rle", "prompt_boxes", "predicted_iou", "stability_score"):
            assert [m[name] for m in ours] == [m[name] for m in theirs]


def test_rows_without_a_usable_box_have_a_reason(prompted):
    check_exactly_once(prompted, 6)
    rows = rows_of(prompted)
    assert (rows["4"]["status"], rows["4"]["n_candidates"]) == ("empty", 0)
    assert {o["reason"] for o in rows["4"]["outcomes"]} == {"no prompt is given for it"}
    assert rows["5"]["status"] == "error"
    assert rows["5"]["error"]["stage"] == "prompts"
    assert "lies outside of the image of" in rows["5"]["error"]["message"]
    assert verify(str(prompted)).problems == ()


def test_points_are_labelled_and_recorded(images, tmp_path):
    lines = ["image,x,y,positive,object,label"]
    for index in range(2):
        ids = cv2.imread(str(images / "masks" / f"{index}.png"), cv2.IMREAD_UNCHANGED)
        for class_id, name in ((1, "lungs"), (2, "tumour")):
            x, y = innermost(ids == class_id)
            lines.append(f"{index}.png,{x:g},{y:g},1,{name},{name}")
        lines.append(f"{index}.png,0,0,0,lungs,lungs")
    lines.append("5.png,500,1,1,a,lungs")
    (tmp_path / "points.csv").write_text("\n".join(lines))
    output = tmp_path / "out"
    points = str(tmp_path / "points.csv")
    with pytest.raises(ConfigError, match=r"have points, which need refine\.model: sam"):
        label(images / "images", output, config_of("refine.model=none"), prompts=points, quiet=True)
    label(
        images / "images",
        output,
        config_of("run.max_error_share=0.5"),
        prompts=points,
        quiet=True,
    )
    rows = rows_of(output)
    for name in ("0", "1"):
        assert [mask["label"] for mask in rows[name]["masks"]] == ["lungs", "tumour"]
        assert all(mask["prompt_boxes"] == [] for mask in rows[name]["masks"])
        assert all(entry["retrieved"] for entry in rows[name]["ranking"])
    assert rows["2"]["status"] == "empty"
    assert "has the point 500, 1, which is not in the image" in rows["5"]["error"]["message"]
    assert verify(str(output)).problems == ()


def test_without_a_refiner_masks_are_labels_that_vote_in_a_consensus(images, prompted, tmp_path):
    output = tmp_path / "out"
    config = config_of("refine.model=none")
    label(images / "images", output, config, prompts=str(images / "masks"), quiet=True)
    assert verify(str(output)).problems == ()
    rows = rows_of(output)
    for index in range(4):
        ids = cv2.imread(str(images / "masks" / f"{index}.png"), cv2.IMREAD_UNCHANGED)
        assert [mask["label"] for mask in rows[f"{index}"]["masks"]] == ["lungs", "tumour"]
        for mask in rows[f"{index}"]["masks"]:
            # The working image is smaller: no pixel is lost on the way.
            np.testing.assert_array_equal(decode_rle(mask["rle"]), ids == mask["class_id"])
            assert mask["agreement"] == 1
    with pytest.raises(JobError, match="1 of 6 images"):  # that has a box outside of it
        make_consensus([str(output), str(prompted)], str(tmp_path / "agreed"), quiet=True)
    agreed, boxed = rows_of(tmp_path / "agreed"), rows_of(prompted)
    for name in ("0", "1"):
        votes = [decode_rle(row[name]["masks"][0]["rle"]) for row in (rows, boxed, agreed)]
        np.testing.assert_array_equal(votes[2], votes[0] & votes[1])


def test_a_folder_of_masks_gives_the_boxes_of_gt_sam(images):
    config = config_of("propose.model=prompts")
    prompts = open_prompts(str(images / "masks"), config).among([ImageRef("/in/0.png")])
    image = cv2.imread(str(images / "images/0.png"))
    stack = Stack(1, "image", lambda _index: image)
    boxes = find_prompts(ImageRef("/in/0.png"), image, config, prompts, stack)
    ids = cv2.imread(str(images / "masks/0.png"), cv2.IMREAD_UNCHANGED)
    assert boxes == [
        (label, box)
        for class_id, label in ((1, "lungs"), (2, "tumour"))
        for box in reference_boxes(ids == class_id)
    ]
    assert find_prompts(ImageRef("/in/4.png"), image, config, prompts, stack) == []


def prompts_of(folder, ids, image):
    """Return the boxes of a mask that is the only one of a folder."""
    cv2.imwrite(str(folder / "a.png"), ids)
    config = config_of("propose.model=prompts")
    prompts = open_prompts(str(folder), config).among([ImageRef("/in/a.png")])
    stack = Stack(1, "image", lambda _index: image)
    return find_prompts(ImageRef("/in/a.png"), image, config, prompts, stack)


def test_an_object_too_small_for_gt_sam_is_not_lost(tmp_path):
    ids = np.zeros((100, 100), np.uint8)
    ids[10:12, 10:15], ids[50, 50] = 2, 2
    image = np.zeros((100, 100, 3), np.uint8)
    assert prompts_of(tmp_path, ids, image) == [("tumour", (10, 10, 14, 11))]
    ids[60:90, 60:90] = 2
    assert prompts_of(tmp_path, ids, image) == [("tumour", (60, 60, 89, 89))]


def test_a_mask_with_values_of_no_class_is_refused(tmp_path):
    ids = np.full((40, 40), 255, np.uint8)
    with pytest.raises(ImageError, match=r"holds the values 255, but the class ids .* are 1, 2"):
        prompts_of(tmp_path, ids, np.zeros((40, 40, 3), np.uint8))


def test_the_prompts_belong_to_the_job(images, prompted, capsys):
    before = tree(prompted)
    boxes = str(images / "boxes.json")
    label(images / "images", prompted, config_of(), prompts=boxes)
    assert tree(prompted) == before
    shown = capsys.readouterr().err
    assert "1 image of the prompts is not in the input (the first: lost.png)" in shown
    changed = coco_of(images, "changed.json")
    with pytest.raises(ResumeError, match="prompts"):
        label(images / "images", prompted, config_of(), prompts=changed, quiet=True)
    proposing = config_of("clip.allow_untaught=true")
    with pytest.raises(ResumeError, match=r"propose\.model"):
        label(images / "images", prompted, proposing, quiet=True)


def test_a_retry_refuses_changed_prompts(images, prompted):
    original = (images / "boxes.json").read_text()
    coco_of(images, "boxes.json", **{"5": [5, 10, 20, 20]})
    with pytest.raises(ResumeError, match="was made with other prompts"):
        retry(prompted, quiet=True)
    (images / "boxes.json").write_text(original)


def test_modes_that_need_proposals_are_refused(images):
    with pytest.raises(ConfigError, match="unprompted, which needs proposals"):
        label(
            images / "images",
            images / "never",
            config_of("run.modes=[cascade, unprompted]"),
            prompts=str(images / "masks"),
        )
    with pytest.raises(ConfigError, match=r"give the boxes \(--prompts\)"):
        label(images / "images", images / "never", config_of("propose.model=prompts"))
    with pytest.raises(ConfigError, match="it takes the boxes of label --prompts"):
        Cascade(config_of("propose.model=prompts"))
