"""SAM 3 as proposer of labelled instances: the instances of transformers, on random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.loading import load_proposer
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.identity import identify
from salip_ray.models.registry import needed

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 56
TASK = {
    "name": "chest",
    "prompts": {"lungs": ["Both lungs on an X-ray."], "heart": ["The heart on an X-ray."]},
    "top_k": 2,
    "min_area": 0,
    "max_area": 1,
}
PHRASES = {"lungs": "lungs", "heart": "a heart"}


def tiny_sam3():
    """A small Sam3Model with random weights."""
    import transformers as t

    torch.manual_seed(1)
    small = {"hidden_size": 32, "num_attention_heads": 2, "dropout": 0.0}
    layers = {**small, "intermediate_size": 48, "num_layers": 2}
    grids = [[SIDE // 14 * n] * 2 for n in (4, 2, 1)]
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    config = t.Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": grids,
        },
        text_config=text,
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 12},
        mask_decoder_config=small,
    )
    model = t.Sam3Model(config).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if "norm" not in name and tensor.ndim > 1:
            tensor.copy_(torch.randn_like(tensor) * 0.2)
    return model


def tiny_processor():
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {"<pad>": 0, "<end>": 1, "<unk>": 2}
    letters |= {letter: 3 + n for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    words = Tokenizer(models.WordPiece(letters, unk_token="<unk>", continuing_subword_prefix=""))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", model_max_length=32
    )
    return t.Sam3Processor(t.Sam3ImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer)


@pytest.fixture(scope="module")
def theirs():
    return tiny_sam3(), tiny_processor()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam3")
    for part in theirs:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image():
    return make_phantom("chest_xray", 3, bank="tune", size=80).image[:, 4:]


def config_of(folder, *more, **options):
    options = {"phrases": {"heart": "a heart"}, "threshold": 0.2, **options}
    values = {
        "propose.model": "sam3",
        "propose.weights": {"model": str(folder)},
        "propose.options": options,
        "refine.model": "none",
        "retrieve.max_overlap": 1,
        "image.long_side": 80,
    }
    given = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    return load_config({"task": TASK}, overrides=[*given, *more])


@torch.no_grad()
def official(theirs, image, phrase, threshold):
    """The instances of one phrase, by the model's own forward and post-processing."""
    model, processor = theirs
    inputs = processor(images=image, text=phrase, return_tensors="pt")
    answer = model(
        **{name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    )
    (instances,) = processor.post_process_instance_segmentation(
        answer, threshold, target_sizes=[image.shape[:2]]
    )
    return instances


def test_instances_equal_those_of_transformers(theirs, folder, image):
    config = config_of(folder)
    proposals = load_proposer(config)(image)
    expected = [
        (label, mask, score)
        for label, phrase in PHRASES.items()
        for instances in [official(theirs, image, phrase, 0.2)]
        for mask, score in zip(instances["masks"], instances["scores"], strict=True)
        if mask.sum() > 0
    ]
    assert {label for label, _, _ in expected} == set(PHRASES)
    assert len(proposals.candidates) == len(expected) > 4
    for candidate, (_, mask, score) in zip(proposals.candidates, expected, strict=True):
        np.testing.assert_array_equal(candidate.mask, mask.bool().numpy())
        assert candidate.predicted_iou == pytest.approx(score.item(), abs=1e-6)
    for number, label in enumerate(PHRASES, 1):
        scores = sorted((float(s) for name, _, s in expected if name == label), reverse=True)
        picked = [s.clip.score for s in proposals.selections if s.class_id == number]
        assert picked == pytest.approx(scores[:2], abs=1e-6)


def test_the_cascade_labels_without_a_retriever(folder, image):
    config = config_of(folder)
    assert list(needed(config)) == ["propose"]
    assert list(identify(config)) == ["propose.model"]
    result = Cascade(config)(image)
    assert {mask.label for mask in result.masks} == set(PHRASES)
    assert result.masks[0].mask.shape == image.shape[:2]


def test_a_threshold_that_nothing_passes_leaves_the_image_empty(folder, image):
    assert load_proposer(config_of(folder, threshold=0.999))(image).candidates == ()


def test_fast_is_nearly_the_same(folder, image):
    exact, fast = (
        load_proposer(config_of(folder, f"run.precision={precision}", threshold=0))(image)
        for precision in ("exact", "fast")
    )
    scores = [[c.predicted_iou for c in p.candidates] for p in (exact, fast)]
    np.testing.assert_allclose(*scores, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrase": "lung"}, "propose.options has phrase: SAM 3 has phrases, threshold"),
        ({"phrases": {"liver": "liver"}}, "phrases names liver: the task has the classes lungs"),
        ({"phrases": ["lung"]}, "phrases must map classes to phrases"),
        ({"threshold": 2}, "threshold is 2: it must be from 0 to below 1"),
        ({"phrases": {"heart": "a heart " * 20}}, "of heart: .* has 120 tokens, SAM 3 reads 32"),
    ],
)
def test_unusable_options_are_refused_by_name(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        load_proposer(config_of(folder, **options))


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds no SAM 3"):
        load_proposer(config_of(tmp_path))


def test_weights_that_lack_a_tensor_are_refused(folder, tmp_path, capfd):
    """transformers would draw its values at random."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = load_file(folder / "model.safetensors")
    lost = sorted(state)[-1]
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"holds no SAM 3 .*: its weights lack {lost}"):
        load_proposer(config_of(tmp_path))
    assert capfd.readouterr().err == ""
    with pytest.raises(WeightsError, match=r"model.safetensors is a file: give the folder"):
        load_proposer(config_of(tmp_path / "model.safetensors"))
