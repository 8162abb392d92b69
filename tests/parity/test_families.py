"""Other SAMs give the candidates of their official packages, on the same random weights.

The packages are not dependencies: ``pip install --no-deps segment-anything-hq==0.3``. Without one,
its tests are skipped.
"""

from __future__ import annotations

import numpy as np
import pytest

from salip_ray.cascade.loading import load_proposer, load_refiner
from tests.unit.models import test_sam_hq as hq

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # of packages of the time of timm 0.9
]
SETTINGS = (
    *("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
    *("box_nms_thresh", "crop_n_layers", "min_mask_region_area"),
)
_STRAY_PIXELS = 3  # of all candidates: sums in another order move logits that are nearly 0


def assert_same_candidates(proposals, masks):
    assert len(proposals.candidates) == len(masks) > 5
    strays = 0
    for candidate, mask in zip(proposals.candidates, masks, strict=True):
        assert candidate.point == pytest.approx(mask["point_coords"][0])
        assert candidate.predicted_iou == pytest.approx(mask["predicted_iou"], abs=1e-4)
        strays += np.count_nonzero(candidate.mask != mask["segmentation"])
    assert strays <= _STRAY_PIXELS


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
    assert np.count_nonzero(refined.masks[0] != mask) <= _STRAY_PIXELS
    assert refined.predicted_iou[0] == pytest.approx(iou, abs=1e-4)
