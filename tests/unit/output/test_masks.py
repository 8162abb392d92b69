"""Stored masks: RLEs as in COCO, label maps with a rule for overlaps, reproducible PNGs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from salip_ray.output import masks
from salip_ray.schema import ClassMask, ClipScores, Mask


def class_mask(
    mask: Mask, class_id: int, score: float | None, method: str = "cascade"
) -> ClassMask:
    return ClassMask(
        method=method,
        label=f"class {class_id}",
        class_id=class_id,
        mask=mask,
        candidate_ids=(0,),
        clip=None if score is None else ClipScores(score),
    )


def rectangle(height: int, width: int, y0: int, x0: int, y1: int, x1: int) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=17)))
def test_rle_gives_the_mask_back(mask: Mask) -> None:
    rle = masks.encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    assert masks.area(rle) == mask.sum()
    decoded = masks.decode_rle(rle)
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask)


def test_rle_counts_are_cocos() -> None:
    # Columns first: 5 unset, 2 set, 2 unset, 2 set, 9 unset; from the fourth run on, COCO's text
    # form holds the difference to the run two before.
    assert masks.encode_rle(rectangle(4, 5, 1, 1, 3, 3)) == {"size": [4, 5], "counts": "52207"}


def test_box_is_x_y_width_height() -> None:
    rle = masks.encode_rle(rectangle(40, 60, 5, 12, 25, 52))
    assert masks.bbox_xywh(rle) == (12, 5, 40, 20)
    assert masks.bbox_xywh(masks.encode_rle(np.zeros((4, 5), np.bool_))) == (0, 0, 0, 0)


def test_stacked_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \[1, 4, 5\]"):
        masks.encode_rle(np.zeros((1, 4, 5), np.bool_))


@pytest.mark.parametrize("reverse", [False, True])
def test_overlap_goes_to_the_higher_score(reverse: bool) -> None:
    weak = class_mask(rectangle(4, 6, 0, 0, 4, 4), 1, 20.0)
    strong = class_mask(rectangle(4, 6, 0, 2, 4, 6), 2, 21.0)
    both = [strong, weak] if reverse else [weak, strong]
    np.testing.assert_array_equal(masks.label_map(both, 4, 6), [[1, 1, 2, 2, 2, 2]] * 4)


@pytest.mark.parametrize("reverse", [False, True])
def test_equal_scores_go_to_the_lower_class(reverse: bool) -> None:
    first = class_mask(rectangle(4, 6, 0, 0, 4, 4), 1, 20.0)
    # Differs only past float32, which is all a row keeps.
    second = class_mask(rectangle(4, 6, 0, 2, 4, 6), 2, 20.0 + 1e-9)
    both = [second, first] if reverse else [first, second]
    np.testing.assert_array_equal(masks.label_map(both, 4, 6), [[1, 1, 1, 1, 2, 2]] * 4)


def test_a_mask_without_score_yields() -> None:
    unscored = class_mask(rectangle(2, 3, 0, 0, 2, 3), 1, None)
    scored = class_mask(rectangle(2, 3, 0, 0, 2, 1), 2, -5.0)
    np.testing.assert_array_equal(masks.label_map([scored, unscored], 2, 3), [[2, 1, 1]] * 2)


def test_baselines_stay_out_of_the_label_map() -> None:
    baseline = class_mask(rectangle(4, 6, 0, 0, 4, 6), 1, 99.0, method="gt_sam")
    assert not masks.label_map([baseline], 4, 6).any()


@pytest.mark.parametrize(
    ("n_classes", "dtype"), [(0, np.uint8), (254, np.uint8), (255, np.uint16), (65_535, np.uint16)]
)
def test_depth_follows_from_the_task(n_classes: int, dtype: type) -> None:
    assert masks.label_map([], 3, 4, n_classes=n_classes).dtype == dtype


def test_mask_of_another_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"class 1.*\[4, 5\].*4 x 6"):
        masks.label_map([class_mask(np.ones((4, 5), np.bool_), 1, 1.0)], 4, 6)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=17),
    )
)
def test_png_gives_the_label_map_back(labels: masks.LabelMap) -> None:
    data = masks.encode_png(labels)
    assert data == masks.encode_png(np.asfortranarray(labels))
    decoded = masks.decode_png(data)
    assert decoded.dtype == labels.dtype
    np.testing.assert_array_equal(decoded, labels)


def test_other_tools_read_the_png() -> None:
    labels = np.array([[0, 1, 254]], np.uint8)
    with Image.open(io.BytesIO(masks.encode_png(labels))) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), labels)
    with Image.open(io.BytesIO(masks.encode_png(np.array([[0, 300]], np.uint16)))) as image:
        np.testing.assert_array_equal(np.asarray(image), [[0, 300]])


@pytest.mark.parametrize("labels", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_png_takes_label_maps_only(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 or uint16"):
        masks.encode_png(labels)


@pytest.mark.parametrize("data", [b"", b"not a png"])
def test_bytes_that_are_no_png_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a grey PNG"):
        masks.decode_png(data)
