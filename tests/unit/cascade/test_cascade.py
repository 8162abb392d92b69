"""The whole cascade on one image, and its baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from salip_ray.cascade.cascade import Cascade
from salip_ray.errors import ConfigError, ImageError, InputError
from salip_ray.models.devices import resolve_device
from tests.unit.cascade.conftest import ALL, TASK, of


def test_every_method_labels_every_class(cascade, picture, references):
    result = cascade(picture(180, 256), references=references)
    assert (result.height, result.width) == (180, 256)
    assert [outcome.outcome for outcome in result.outcomes] == ["labelled", "labelled"]
    for method in ("cascade", "unprompted_confident", "unprompted_largest", "gt_sam"):
        for class_id, label in enumerate(TASK["prompts"], start=1):
            mask = of(result, method)[label]
            assert mask.class_id == class_id
            assert mask.mask.shape == (180, 256)
            assert mask.mask.dtype == np.bool_
            assert mask.mask.any()
    assert len(result.masks) == 8


def test_trap_4_the_union_is_per_class_over_k(cascade, sam, picture, references):
    """Each class's mask is the union of the official predictor's masks from its own k boxes."""
    image = picture(90, 128)
    result = cascade(image, references={})
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    boxes = {candidate.id: candidate.box for candidate in result.candidates}
    for label, k in (("lung", 2), ("heart", 1)):
        chosen = [s for s in result.selections if s.label == label]
        assert len(chosen) == k
        expected = np.zeros((90, 128), dtype=bool)
        for selection in chosen:
            box = np.array(boxes[selection.candidate_id])
            expected |= predictor.predict(box=box, multimask_output=False)[0][0]
        mask = of(result, "cascade")[label]
        np.testing.assert_array_equal(mask.mask, expected)
        assert mask.candidate_ids == tuple(s.candidate_id for s in chosen)
        assert mask.prompt_boxes == tuple(boxes[s.candidate_id] for s in chosen)
        assert mask.clip == chosen[0].clip


def test_trap_11_the_image_is_encoded_once_per_view(sam, clip, configure, picture, monkeypatch):
    calls = []
    encoder = sam.image_encoder.forward
    monkeypatch.setattr(sam.image_encoder, "forward", lambda x: calls.append(len(x)) or encoder(x))
    config = configure(propose={"crop_n_layers": 1}, run={"modes": ALL})
    Cascade(config, sam=sam, clip=clip)(picture(90, 128), references={})
    assert calls == [5]  # one batch: the full view and four crops; no sixth for the box prompts


def test_a_refiner_with_other_weights_encodes_again(
    sam, other_sam, clip, configure, picture, monkeypatch
):
    """`refine.sam` answers as the official predictor does with those weights."""
    monkeypatch.setattr("salip_ray.cascade.loading.load_sam", lambda *_, **__: other_sam)
    image = picture(90, 128)
    config = configure(refine={"sam": {"model": "bundled"}})
    mask = Cascade(config, sam=sam, clip=clip)(image).masks[0]
    predictor = SamPredictor(other_sam)
    predictor.set_image(image)
    expected, _, _ = predictor.predict(box=np.array(mask.prompt_boxes[0]), multimask_output=False)
    np.testing.assert_array_equal(mask.mask, expected[0])


def test_trap_5_channels_are_rgb_as_the_official_predictor_takes_them(cascade, sam, picture):
    image = picture(90, 128)
    predictor = SamPredictor(sam)
    predictor.set_image(image, image_format="RGB")
    assert torch.equal(cascade.propose(image).embedding, predictor.get_image_embedding())
    assert not torch.equal(cascade.propose(image[..., ::-1]).embedding, predictor.features)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((10, 10), dtype=np.uint8), r"shape \[H, W, 3\] \(RGB\), found \[10, 10\]"),
        (np.zeros((10, 10, 4), dtype=np.uint8), r"found \[10, 10, 4\]"),
        (np.zeros((0, 10, 3), dtype=np.uint8), r"found \[0, 10, 3\]"),
        (np.zeros((10, 10, 3)), "must be uint8 .*, found float64"),
        ([[1, 2]], "must be a NumPy array, found list"),
    ],
    ids=["grey", "alpha", "empty", "float", "list"],
)
def test_non_rgb_image_is_refused(cascade, image, message):
    with pytest.raises(ImageError, match=message):
        cascade(image, references={})


def test_references_are_needed_and_must_fit(cascade, picture):
    with pytest.raises(InputError, match="gt_sam, which needs references"):
        cascade(picture(90, 128))
    with pytest.raises(ImageError, match=r"reference of 'lung' has shape \(90, 127\)"):
        cascade(picture(90, 128), references={"lung": np.ones((90, 127), dtype=bool)})


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert resolve_device("auto").type == "cuda"
    else:
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no CUDA device"):
            resolve_device("cuda")


def test_candidates_may_be_a_stack_and_what_is_no_mask_is_refused(sam, clip, configure, picture):
    image = picture(90, 128)
    masks = np.zeros((2, 90, 128), dtype=bool)
    masks[0, 20:70, 30:60] = masks[1, 10:80, 70:120] = True
    cascade = Cascade(configure(propose={"model": "none"}), sam=sam, clip=clip)
    assert cascade(image, candidates=masks).n_proposed == 2
    for wrong in (masks[0], [None], ["mask.png"], masks.tolist()):
        with pytest.raises(ImageError, match=r"candidate 1 "):
            cascade(image, candidates=wrong)
