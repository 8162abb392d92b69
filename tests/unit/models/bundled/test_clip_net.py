from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from salip_ray.errors import WeightsError
from salip_ray.models.bundled import clip_net, sam_net
from salip_ray.models.bundled.clip_net import (
    build_bundled_clip,
    compact_tokens,
    load_bundled_clip,
    save_bundled_clip,
)
from training.clip_losses import encode_text


@pytest.fixture(scope="module")
def shipped():
    return load_bundled_clip()


def test_shipped_model_loads_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the bundled CLIP must not need a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model, _, _ = load_bundled_clip()
    assert isinstance(model, open_clip.CLIP)
    assert not model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_shipped_weights_are_small():
    clip, sam = clip_net.WEIGHTS.stat().st_size, sam_net.WEIGHTS.stat().st_size
    assert clip < 6e6
    assert clip + sam < 15e6


def test_the_functions_of_open_clip_work_on_it(shipped):
    model, preprocess, tokenizer = shipped
    tokens = open_clip.tokenize(["the lungs", "a brain MRI"])
    assert torch.equal(tokens, tokenizer(["the lungs", "a brain MRI"]))
    pixels = preprocess(Image.new("L", (40, 90), 200)).unsqueeze(0)
    assert pixels.shape == (1, 3, 64, 64)
    with torch.no_grad():
        image, text, scale = model(pixels, tokens)
    assert image.shape == (1, 128)
    assert text.shape == (2, 128)
    assert torch.allclose(text.norm(dim=1), torch.ones(2), atol=1e-5)
    assert 1 < scale <= 100.01


def test_preprocess_keeps_the_ends_of_a_long_crop(shipped):
    _, preprocess, _ = shipped
    tall = np.zeros((120, 30, 3), np.uint8)
    tall[:12], tall[-12:] = 255, 255
    pixels = preprocess(Image.fromarray(tall))
    middle = pixels[0, :, 32]
    black = pixels.min()
    assert middle[1] > black + 1
    assert middle[-2] > black + 1
    assert pixels[0, 32, 2] == pytest.approx(float(pixels[0, 32, 32]), abs=0.1)  # bars are black


def test_unknown_words_share_one_embedding(shipped):
    model, _, tokenizer = shipped
    with torch.no_grad():
        texts = model.encode_text(tokenizer(["liver", "xylophone", "lung"]), normalize=True)
    assert torch.isfinite(texts).all()
    table = model.token_embedding.weight
    liver, xylophone = (tokenizer.encode(word) for word in ("liver", "xylophone"))
    assert torch.equal(table[liver[0]], table[xylophone[0]])
    assert not torch.equal(table[liver[0]], table[tokenizer.encode("lung")[0]])


def test_compact_ids_stay_in_order_and_unknown_tokens_become_zero():
    tokens = torch.tensor([5, 9, 300])
    ids = compact_tokens(torch.tensor([[9, 4, 300, 0], [5, 301, 300, 8]]), tokens)
    assert ids.tolist() == [[2, 0, 3, 0], [1, 0, 3, 0]]


def test_a_saved_model_encodes_texts_as_before(tmp_path):
    torch.manual_seed(0)
    tokenizer = clip_net.bundled_tokenizer()
    tokenised = tokenizer(["a lung", "the brain on the left"])
    tokens = tokenised[tokenised > 0].unique()
    small = build_bundled_clip(len(tokens) + 1).eval()
    save_bundled_clip(small.state_dict(), tokens, tmp_path / "clip.safetensors")
    loaded, _, _ = load_bundled_clip(tmp_path / "clip.safetensors")
    strange = tokenizer(["a zebra lung"])
    with torch.no_grad():
        for ids in (tokenised, strange):
            expected = small.encode_text(compact_tokens(ids, tokens), normalize=True)
            assert torch.allclose(loaded.encode_text(ids, normalize=True), expected, atol=5e-3)
        pixels = torch.randn(2, 3, 64, 64)
        image = small.encode_image(pixels, normalize=True)
        assert torch.allclose(loaded.encode_image(pixels, normalize=True), image, atol=5e-3)


def test_text_features_do_not_depend_on_padding(shipped):
    model, _, tokenizer = shipped
    tokens = tokenizer(["a lung", "the brain is an oval organ with folded grey and white tissue"])
    with torch.no_grad():
        assert torch.allclose(encode_text(model, tokens), model.encode_text(tokens), atol=1e-5)


def test_unusable_weights_are_errors_with_the_reason(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"gone\.safetensors: no such file"):
        load_bundled_clip(tmp_path / "gone.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"not a weight")
    with pytest.raises(WeightsError, match=r"torn\.safetensors: not a safetensors file"):
        load_bundled_clip(tmp_path / "torn.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors: made for another network"):
        load_bundled_clip(tmp_path / "other.safetensors")
    tensors = load_file(clip_net.WEIGHTS)
    tensors["visual.conv1.weight"] = tensors["visual.conv1.weight"][:1]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"cut\.safetensors: made for another network"):
        load_bundled_clip(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("size", [(256, 1), (1, 256), (300, 2), (1, 1)])
def test_a_crop_as_thin_as_a_line_is_encoded(shipped, size):
    model, preprocess, _ = shipped
    pixels = preprocess(Image.new("RGB", size, (255, 255, 255)))
    assert pixels.shape == (3, 64, 64)
    assert pixels.max() > pixels.min() or size == (1, 1)
    assert torch.isfinite(model.encode_image(pixels[None])).all()
