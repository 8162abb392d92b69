"""Other SAMs give the candidates of their official packages, on the same random weights.

The packages are not dependencies: ``pip install --no-deps segment-anything-hq==0.3
mobilesam-mirror==1.0.0``, and ``pip install sam2==1.1.0``. Without one, its tests are skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import families
from benchmarks.sam2_names import to_transformers
from salip_ray.cascade.loading import load_proposer, load_refiner
from salip_ray.cascade.proposer import SamProposer
from salip_ray.config import load_config
from salip_ray.models.sam.load import quicken
from tests.unit.models import test_mobile_sam as mobile
from tests.unit.models import test_sam2 as sam2
from tests.unit.models import test_sam_hq as hq

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # of packages of the time of timm 0.9
]
SETTINGS = (
    *("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
    *("box_nms_thresh", "crop_n_layers", "min_mask_region_area"),
)
_STRAY_SHARE = 1e-5  # of pixels: sums in another order move logits that are nearly 0


def assert_same_candidates(proposals, masks):
    assert len(proposals.candidates) == len(masks) > 5
    strays = 0
    for candidate, mask in zip(proposals.candidates, masks, strict=True):
        assert candidate.point == pytest.approx(mask["point_coords"][0])
        assert candidate.predicted_iou == pytest.approx(mask["predicted_iou"], abs=1e-4)
        strays += np.count_nonzero(candidate.mask != mask["segmentation"])
    assert strays <= _STRAY_SHARE * len(masks) * masks[0]["segmentation"].size


def official_sam_hq(package, ours):
    """Return the official SAM-HQ with the weights of ours."""
    from functools import partial

    from torch import nn

    net = package.modeling
    sam = net.Sam(
        image_encoder=net.ImageEncoderViT(
            depth=3,
            embed_dim=48,
            img_size=hq.SIDE,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=3,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=(1, 2),
            window_size=3,
            out_chans=32,
        ),
        prompt_encoder=net.PromptEncoder(
            embed_dim=32,
            image_embedding_size=(8, 8),
            input_image_size=(hq.SIDE, hq.SIDE),
            mask_in_chans=8,
        ),
        mask_decoder=net.mask_decoder_hq.MaskDecoderHQ(
            transformer_dim=32,
            transformer=net.TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=48, num_heads=8),
            iou_head_hidden_dim=24,
            vit_dim=48,
        ),
    )
    sam.load_state_dict(ours.state_dict())
    return sam.eval()


def test_sam_hq_equals_the_official_generator_and_predictor(tmp_path):
    package = pytest.importorskip("segment_anything_hq")
    hq.tiny_sam_hq().save_pretrained(tmp_path)
    image = hq.make_phantom("chest_xray", 3, bank="tune", size=150).image
    config = hq.config_of(tmp_path)
    proposer = load_proposer(config)
    sam = official_sam_hq(package, proposer.sam)
    settings = {name: getattr(config.propose, name) for name in SETTINGS}
    masks = package.SamAutomaticMaskGenerator(sam, **settings).generate(
        image, multimask_output=True
    )
    proposals = proposer(image)
    assert_same_candidates(proposals, masks)
    predictor = package.SamPredictor(sam)
    predictor.set_image(image)
    box = (20.0, 24.0, 90.0, 100.0)
    (mask,), (iou,), _ = predictor.predict(box=np.array(box), multimask_output=False)
    size = image.shape[:2]
    refined = load_refiner(config)(
        proposals.embedding, boxes=[box], working_size=size, original_size=size
    )
    assert np.count_nonzero(refined.masks[0] != mask) <= _STRAY_SHARE * mask.size
    assert refined.predicted_iou[0] == pytest.approx(iou, abs=1e-4)


def official_mobile_sam(package, sizes, ours):
    """Return the official MobileSAM of other sizes with the weights of ours."""
    net = package.modeling
    widths, side = sizes["widths"], sizes["img_size"]
    sam = net.Sam(
        image_encoder=net.tiny_vit_sam.TinyViT(
            img_size=side,
            num_classes=1,
            embed_dims=list(widths),
            depths=list(sizes["depths"]),
            num_heads=[width // 32 for width in widths],
            window_sizes=[7, 7, 14, 7],
            drop_path_rate=0.0,
        ),
        prompt_encoder=ours.prompt_encoder,
        mask_decoder=net.MaskDecoder(
            num_multimask_outputs=3,
            transformer=net.TwoWayTransformer(
                depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=256,
        ),
    )
    state = mobile.official_state(ours)
    del state["image_encoder.head.weight"]
    missing, unexpected = sam.load_state_dict(state, strict=False)
    assert {name.split(".")[1] for name in missing} <= {"norm_head", "head"}
    assert not unexpected
    return sam.eval()


def test_mobile_sam_equals_the_official_generator():
    package = pytest.importorskip("mobile_sam")
    torch.manual_seed(0)
    # The official code has only the grid and the last width of the published sizes.
    sizes = {"img_size": 1024, "widths": (32, 32, 64, 320), "depths": (1, 1, 1, 1)}
    ours = mobile.random_sam(**sizes)
    sam = official_mobile_sam(package, sizes, ours)
    image = hq.make_phantom("chest_xray", 3, bank="tune", size=150).image
    settings = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    config = load_config(
        {"task": {"name": "x", "prompts": {"x": ["x"]}, "min_area": 0, "max_area": 1}},
        overrides={
            "clip": {"allow_untaught": True},
            "propose": {**settings, "box_nms_thresh": 1.0, "min_mask_region_area": 0},
        },
    )
    masks = package.SamAutomaticMaskGenerator(
        sam, **settings, box_nms_thresh=1.0, min_mask_region_area=0
    ).generate(image)
    quicken(ours)
    assert_same_candidates(SamProposer(ours, config)(image), [m for m in masks if m["area"]])


def test_sam2_equals_the_official_generator_and_predictor(tmp_path):
    pytest.importorskip("sam2")
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    official = families.official_sam2().eval().requires_grad_(False)
    families.make_decisive(official.sam_mask_decoder)
    model = Sam2Model(Sam2Config())  # the tiny one
    model.load_state_dict(to_transformers(official.state_dict()))
    model.save_pretrained(tmp_path)
    image = hq.make_phantom("chest_xray", 3, bank="tune", size=150).image
    low = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    config = sam2.config_of(tmp_path, points_per_side=4, **low)
    settings = {name: getattr(config.propose, name) for name in SETTINGS}
    masks = SAM2AutomaticMaskGenerator(official, **settings).generate(image)
    proposals = load_proposer(config)(image)
    assert_same_candidates(proposals, masks)
    predictor = SAM2ImagePredictor(official)
    predictor.set_image(image)
    box = (20.0, 24.0, 90.0, 100.0)
    (mask,), (iou,), _ = predictor.predict(box=np.array(box), multimask_output=False)
    size = image.shape[:2]
    refined = load_refiner(config)(
        proposals.embedding, boxes=[box], working_size=size, original_size=size
    )
    assert np.count_nonzero(refined.masks[0] != mask) <= _STRAY_SHARE * mask.size
    assert refined.predicted_iou[0] == pytest.approx(iou, abs=1e-4)
