"""Candidates that are given: every form gives the same masks, whatever its classes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from salip_ray.config import ImageConfig, load_config
from salip_ray.errors import ImageError, InputError
from salip_ray.pipeline.decoding.annotations import components_of, find_prompts
from salip_ray.pipeline.inputs import open_candidates
from salip_ray.schema import ImageRef
from salip_ray.sources.coco_masks import encode_mask
from salip_ray.sources.formats import dicom
from salip_ray.sources.formats.stack import Stack
from tests.dicom_series import write_slice
from tests.unit.sources.prompts.test_segmentations import LIVER, SIZE, SPLEEN, planes, write_seg

CONFIG = load_config("lungs")  # neither liver nor spleen
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def given(location, image=ImageRef("/in/a.png"), stack=None, config=CONFIG):  # noqa: B008
    candidates = open_candidates(str(location), config).among([image])
    stack = stack or Stack(1, "image", lambda _index: IMAGE)
    return find_prompts(image, stack.picture(0), config, candidates, stack)


def as_png(folder):
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), (LIVER * 5 + SPLEEN * 200).astype(np.uint8))
    return folder / "masks"


def coco(folder, *segmentations, size=SIZE):
    height_and_width = {} if size is None else {"height": size[0], "width": size[1]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", **height_and_width}],
        "categories": [{"id": 1, "name": "organ"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3], "segmentation": item}
            for item in segmentations
        ],
    }
    (folder / "masks.json").write_text(json.dumps(content))
    return folder / "masks.json"


def as_counts(folder):
    return coco(folder, encode_mask(LIVER), encode_mask(SPLEEN))


def as_polygons(folder):
    return coco(folder, [[3, 2, 12, 2, 12, 9, 3, 9]], [[20, 11, 27, 11, 27, 15, 20, 15]])


@pytest.mark.parametrize("form", [as_png, as_counts, as_polygons])
def test_every_form_gives_the_same_masks(tmp_path, form):
    masks = [mask for _, mask in given(form(tmp_path))]
    np.testing.assert_array_equal(masks, [LIVER, SPLEEN])


def test_segments_of_any_label_are_candidates(tmp_path):
    grey = np.zeros(SIZE, np.int16)
    files = [write_slice(tmp_path / f"{n}.dcm", grey, 3.0 * n, number=n + 1) for n in range(3)]
    seg = write_seg(tmp_path / "seg", files, planes(), ("a lobe", "a lobe"))
    (tmp_path / "segs").mkdir()
    seg.rename(tmp_path / "segs" / "all.dcm")
    stack = dicom.read(files[1].read_bytes(), CONFIG.image)
    taken = given(tmp_path / "segs", ImageRef(str(files[1])), stack)
    np.testing.assert_array_equal([mask for _, mask in taken], [LIVER, SPLEEN])


def test_boxes_of_any_label_stay_boxes(tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1,label\na.png,1,2,5,6,a\na.png,3,4,9,9,\n")
    assert [box for _, box in given(table)] == [(1, 2, 5, 6), (3, 4, 9, 9)]


def test_parts_of_a_value_are_candidates_unless_they_are_tiny():
    ids = np.zeros((100, 100), np.uint8)
    ids[10:30, 10:30], ids[50:80, 50:80], ids[5, 5] = 3, 3, 3
    ids[90, 90:92], ids[95, 95] = 4, 4
    taken = components_of(ids, CONFIG)
    assert [(label, int(mask.sum())) for label, mask in taken] == [("3", 400), ("3", 900), ("4", 2)]
    assert components_of(np.zeros_like(ids), CONFIG) == []
    tight = CONFIG.model_copy(update={"image": ImageConfig(max_bytes=20_000)})
    with pytest.raises(ImageError, match=r"3 candidates for 100 x 100 pixels need 30,000 bytes"):
        components_of(ids, tight)


@pytest.mark.parametrize(
    ("segmentation", "size", "problem"),
    [
        ([[3, 2, 12, 2, 12]], SIZE, "a polygon that is no list of x, y"),
        ([[3, 2, 12, 2, 12, 9]], None, "its image needs height and width"),
        ({"size": list(SIZE), "counts": [1]}, SIZE, "the RLE is damaged"),
    ],
)
def test_outlines_that_cannot_be_used_name_the_annotation(tmp_path, segmentation, size, problem):
    with pytest.raises(InputError, match=f"candidates .*annotation 1.*{problem}"):
        given(coco(tmp_path, segmentation, size=size))


def test_an_outline_without_a_pixel_is_refused(tmp_path):
    empty = encode_mask(np.zeros(SIZE, np.uint8))
    with pytest.raises(ImageError, match=r"candidate 2 \(organ\) has no pixel in the image"):
        given(coco(tmp_path, encode_mask(LIVER), empty))


def test_messages_call_them_candidates(tmp_path):
    with pytest.raises(InputError, match=r"candidates .*nothing do not exist"):
        given(tmp_path / "nothing")
    path = as_counts(tmp_path)
    with pytest.raises(InputError, match=r"no image of the input has a candidate in"):
        given(path, ImageRef("/in/b.png"))
    with pytest.raises(ImageError, match=r"its candidates are of an image of 30 x 20 pixels"):
        given(path, stack=Stack(1, "image", lambda _index: IMAGE[:10]))
