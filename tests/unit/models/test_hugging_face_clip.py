"""CLIP and SigLIP of Hugging Face as retrievers: equal features on random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from salip_ray.cascade.cascade import Cascade
from salip_ray.cascade.loading import load_retriever
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.identity import identify

pytestmark = pytest.mark.usefixtures("one_thread")
SENTENCES = ["a lung", "an image of the heart", "a"]
SIZES = [(20, 31), (64, 8), (5, 5)]


def save(kind: str, folder):
    """Save a small model with random weights, its tokenizer and image processor."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    letters = {"<pad>": 0, "<end>": 1, "<unk>": 2}
    letters |= {letter: 3 + n for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    words = Tokenizer(models.WordPiece(letters, unk_token="<unk>", continuing_subword_prefix=""))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", model_max_length=24
    )
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 40,
        "max_position_embeddings": 24,
        "eos_token_id": 1,
    }
    if kind == "clip":
        config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model, images = (
            t.CLIPModel(config),
            t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        )
        processor = t.CLIPProcessor(images, tokenizer)
    else:
        config = t.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)
        model, images = (
            t.SiglipModel(config),
            t.SiglipImageProcessor(size={"height": 32, "width": 32}),
        )
        processor = t.SiglipProcessor(images, tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


def config_of(folder, *more):
    weights = json.dumps({"model": str(folder)})
    given = ["retrieve.model=hf-clip", f"retrieve.weights={weights}", "image.long_side=64"]
    return load_config("lungs", overrides=[*given, *more])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_features_equal_those_of_transformers(kind, tmp_path):
    theirs, processor = save(kind, tmp_path)
    retriever = load_retriever(config_of(tmp_path))
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    padding = "max_length" if kind == "siglip" else True
    with torch.no_grad():
        inputs = processor(
            text=SENTENCES,
            images=[Image.fromarray(picture) for picture in pictures],
            padding=padding,
            return_tensors="pt",
        )
        expected = theirs(**inputs)
    images = retriever.clip.encode_images(pictures)
    texts = retriever.clip.encode_texts(SENTENCES)
    torch.testing.assert_close(images, expected.image_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-6, rtol=1e-5)
    assert retriever.clip.logit_scale == pytest.approx(theirs.logit_scale.exp().item())


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_cascade_retrieves_with_it(kind, tmp_path):
    save(kind, tmp_path)
    config = config_of(tmp_path)
    image = make_phantom("chest_xray", 0, bank="tune", size=80).image
    result = Cascade(config)(image)
    assert result.selections
    assert list(identify(config)) == ["sam", "retrieve.model"]


def test_fast_is_nearly_the_same(tmp_path):
    save("clip", tmp_path)
    exact, fast = (
        load_retriever(config_of(tmp_path, f"run.precision={precision}"))
        for precision in ("exact", "fast")
    )
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    cosine = exact.clip.encode_images([picture]) @ fast.clip.encode_images([picture]).T
    assert cosine.item() > 0.99


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds no CLIP or SigLIP"):
        load_retriever(config_of(tmp_path))
    with pytest.raises(ConfigError, match="needs model: a folder"):
        load_retriever(load_config("lungs", overrides=["retrieve.model=hf-clip"]))
