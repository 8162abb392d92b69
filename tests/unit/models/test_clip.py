"""Loading CLIP by open_clip: names, tags, files, folders, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from open_clip import factory, pretrained
from safetensors.torch import save_file

from salip_ray.config import ClipConfig
from salip_ray.errors import ConfigError, MissingDependencyError, WeightsError
from salip_ray.models.bundled import clip_net
from salip_ray.models.clip import find as clip_find
from salip_ray.models.clip import load as clip_models
from salip_ray.models.clip.load import load_clip
from salip_ray.models.weights import digest

TINY = {
    "embed_dim": 16,
    "vision_cfg": {
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "image_size": 32,
        "patch_size": 8,
    },
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}
SENTENCES = ["a round organ", "a long and rather detailed sentence about a bright structure"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIP_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Two more names for open_clip, both small: one of each activation."""
    configs = {"Tiny-8": TINY, "Tiny-8-quickgelu": {**TINY, "quick_gelu": True}}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})


@pytest.fixture(scope="module")
def official():
    torch.manual_seed(0)
    return open_clip.CLIP(**TINY).eval().requires_grad_(False)


@pytest.fixture
def checkpoint(official, tmp_path):
    path = tmp_path / "tiny.pt"
    torch.save(official.state_dict(), path)
    return path


def config(path, model="Tiny-8", **options):
    return ClipConfig(model=model, pretrained=str(path), **options)


def assert_same_features(clip, official):
    """As open_clip by itself: its transform, its tokenizer, its model."""
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 57, 3), dtype=np.uint8)
    transform = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([transform(PIL.Image.fromarray(image)) for image in images])
    tokens = open_clip.get_tokenizer("Tiny-8")(SENTENCES)
    with torch.no_grad():
        features, read = official.encode_image(pixels, normalize=True), official.encode_text(tokens)
    assert torch.equal(clip.encode_images(images), features)
    assert torch.equal(clip.encode_images([PIL.Image.fromarray(i) for i in images]), features)
    assert torch.equal(clip.encode_texts(SENTENCES, normalize=False), read)
    torch.testing.assert_close(clip.encode_texts(SENTENCES).norm(dim=-1), torch.ones(2))


def test_a_state_dict_loads_by_name_and_path(official, checkpoint):
    clip = load_clip(config(checkpoint))
    assert_same_features(clip, official)
    assert not clip.model.training
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    assert clip_models.check(config(checkpoint)) == checkpoint


def test_safetensors_and_half_precision_load_as_float32(official, tmp_path):
    state = {name: tensor.half() for name, tensor in official.state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    clip = load_clip(config(tmp_path / "tiny.safetensors"))
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.float32}
    torch.testing.assert_close(
        clip.model.state_dict()["visual.proj"], official.visual.proj.data, atol=1e-3, rtol=1e-2
    )


def test_a_tag_brings_weights_and_transform(official, checkpoint, monkeypatch):
    tag = {"file": str(checkpoint), "mean": (0.1, 0.2, 0.3), "std": (1, 1, 1), "quick_gelu": False}
    monkeypatch.setitem(pretrained._PRETRAINED, "Tiny-8", {"phantoms": tag})
    clip = load_clip(ClipConfig(model="Tiny-8", pretrained="phantoms"))
    black = clip.preprocess(PIL.Image.new("RGB", (32, 32)))
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-0.1, -0.2, -0.3]))
    assert torch.equal(clip.model.visual.proj, official.visual.proj)


def test_a_local_folder_loads(official, tmp_path):
    save_file(official.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    chosen = ClipConfig(model=f"local-dir:{tmp_path}")
    assert_same_features(load_clip(chosen), official)
    assert clip_models.check(chosen) == tmp_path / "open_clip_model.safetensors"


def test_a_hub_name_loads(official, tmp_path, monkeypatch):
    save_file(official.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))

    def hub(model_id, filename="open_clip_model.safetensors", **_):
        assert model_id == "org/tiny"
        return str(tmp_path / filename)

    for module in (factory, clip_find):
        monkeypatch.setattr(module, "download_pretrained_from_hf", hub)
    chosen = ClipConfig(model="hf-hub:org/tiny")
    assert_same_features(load_clip(chosen), official)
    assert clip_models.check(chosen).name == "open_clip_model.safetensors"


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError("Failed to download file\nfor org/tiny")

    monkeypatch.setattr("salip_ray.models.clip.find.download_pretrained_from_hf", fail)
    with pytest.raises(WeightsError, match="hf-hub:org/tiny cannot be found: Failed") as caught:
        load_clip(ClipConfig(model="hf-hub:org/tiny"))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(ConfigError, match=r"'ViT-L14' is not known.*did you mean ViT-L-14"):
        load_clip(ClipConfig(model="ViT-L14", pretrained="openai"))


def test_random_weights_never_label():
    with pytest.raises(
        ConfigError, match=r"clip.pretrained is missing: ViT-B-32 needs a tag \(.*laion"
    ):
        load_clip(ClipConfig(model="ViT-B-32"))


def test_an_unknown_tag_lists_the_models_tags():
    with pytest.raises(ConfigError, match=r"'opnai' is neither a file nor a tag.*openai"):
        load_clip(ClipConfig(model="ViT-B-32-quickgelu", pretrained="opnai"))


@pytest.mark.parametrize("model", ["hf-hub:org/tiny", "local-dir:/tmp/tiny"])
def test_pretrained_is_refused_for_model_that_names_its_weights(model):
    with pytest.raises(ConfigError, match="'openai' would be ignored"):
        load_clip(ClipConfig(model=model, pretrained="openai"))


def test_a_quickgelu_mismatch_is_an_error_not_a_warning():
    with pytest.raises(ConfigError, match=r"use ViT-L-14-quickgelu"):
        load_clip(ClipConfig(model="ViT-L-14", pretrained="openai"))


def test_a_checkpoint_of_another_model_is_refused(checkpoint):
    with pytest.raises(WeightsError, match=r"tiny.pt cannot be loaded as ViT-B-32: "):
        load_clip(config(checkpoint, model="ViT-B-32"))


def test_the_sha256_is_checked(checkpoint):
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    load_clip(config(checkpoint, sha256=sha256))
    with pytest.raises(WeightsError, match=f"its sha256 is {sha256}, expected 0000"):
        load_clip(config(checkpoint, sha256="0" * 64))
    with pytest.raises(WeightsError, match="weights of bundled: its sha256 is"):
        load_clip(ClipConfig(sha256="0" * 64))


def test_weights_altered_between_hash_and_load_are_refused(checkpoint, monkeypatch):
    pinned = config(checkpoint, sha256=digest(checkpoint))
    create = clip_models._create

    def create_and_alter(*arguments):
        created = create(*arguments)
        with checkpoint.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\1")
        return created

    assert load_clip(pinned)
    monkeypatch.setattr(clip_models, "_create", create_and_alter)
    with pytest.raises(WeightsError, match="was altered while it was loaded"):
        load_clip(pinned)


def test_file_that_takes_the_place_of_the_hashed_one_in_a_folder_is_refused(
    official, tmp_path, monkeypatch
):
    hashed = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(official.state_dict(), hashed)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    create = clip_models._create

    def create_from_another(*arguments):
        save_file(official.state_dict(), tmp_path / "open_clip_model.safetensors")
        return create(*arguments)

    monkeypatch.setattr(clip_models, "_create", create_from_another)
    pinned = ClipConfig(model=f"local-dir:{tmp_path}", sha256=digest(hashed))
    with pytest.raises(WeightsError, match=r"was replaced while it was loaded|its sha256 is"):
        load_clip(pinned)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"visual.proj": Malicious()}, tmp_path / "bad.pt")
    # Not even with its sha256: that permits TorchScript only.
    sha256 = hashlib.sha256((tmp_path / "bad.pt").read_bytes()).hexdigest()
    for options in ({}, {"sha256": sha256}):
        with pytest.raises(WeightsError, match=r"bad.pt cannot be loaded"):
            load_clip(config(tmp_path / "bad.pt", **options))
    assert not (tmp_path / "ran").exists()


class Archive(torch.nn.Module):
    """The tensors of a model, as OpenAI's files hold them: a TorchScript archive, with extras."""

    def __init__(self, model):
        super().__init__()
        for name, tensor in model.state_dict().items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, tensor)
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, x):
        return x


@pytest.fixture
def archive(official, tmp_path):
    path = tmp_path / "openai.pt"
    with torch.no_grad(), pytest.warns():  # torch deprecates what OpenAI's files need
        torch.jit.save(torch.jit.trace(Archive(official), torch.zeros(1)), path)
    return path


def test_torchscript_loads_only_after_its_sha256_matched(official, archive):
    with pytest.raises(WeightsError, match=r"openai.pt is a TorchScript archive.*set clip.sha256"):
        load_clip(config(archive, model="Tiny-8-quickgelu"))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    clip = load_clip(config(archive, model="Tiny-8-quickgelu", sha256=sha256))
    assert torch.equal(clip.model.visual.proj, official.visual.proj)
    with pytest.raises(ConfigError, match="use Tiny-8-quickgelu"):
        load_clip(config(archive, sha256=sha256))


def test_a_text_tower_of_transformers_asks_for_the_package(tmp_path, monkeypatch):
    text = {"hf_model_name": "org/bert", "hf_tokenizer_name": "org/bert"}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {**TINY, "text_cfg": text}})
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'salip-ray\[transformers\]'"):
        load_clip(ClipConfig(model=f"local-dir:{tmp_path}"))


def test_the_bundled_clip_loads():
    clip = load_clip(ClipConfig())
    assert clip.encode_texts(SENTENCES).shape == (2, clip_net.EMBED_DIM)
    black = np.zeros((30, 50, 3), dtype=np.uint8)
    assert clip.encode_images([black]).shape == (1, clip_net.EMBED_DIM)
    assert clip_models.check(ClipConfig()) == clip_net.WEIGHTS
