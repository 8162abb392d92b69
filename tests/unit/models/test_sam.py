"""Loading SAM: official checkpoints by their own format, and what is refused."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from salip_ray.config import SamConfig
from salip_ray.errors import WeightsError
from salip_ray.models.bundled import sam_net
from salip_ray.models.sam import load as sam_models
from salip_ray.models.sam.load import load_sam
from salip_ray.models.weights import digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIP_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory):
    """An official ViT-B with random weights, and its checkpoint as the official files are."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    path = tmp_path_factory.mktemp("weights") / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    yield sam, path
    path.unlink()


def config(path, model="vit_b", **options):
    return SamConfig(model=model, checkpoint=str(path), **options)


def test_an_official_checkpoint_loads_by_its_own_format(vit_b):
    official, path = vit_b
    sam = load_sam(config(path))
    ours, theirs = sam.state_dict(), official.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not sam.training
    assert not any(parameter.requires_grad for parameter in sam.parameters())


def test_decoder_only_leaves_the_image_encoder_out(vit_b):
    official, path = vit_b
    sam = load_sam(config(path), decoder_only=True)
    assert sam.image_encoder.img_size == 1024
    assert sum(parameter.numel() for parameter in sam.parameters()) < 5e6
    embedding = torch.zeros(1, 256, 64, 64)
    for model in (sam, official):
        sparse, dense = model.prompt_encoder(None, torch.tensor([[10.0, 10, 500, 600]]), None)
        pe = model.prompt_encoder.get_dense_pe()
        masks, _ = model.mask_decoder(embedding, pe, sparse, dense, multimask_output=False)
        upscaled = model.postprocess_masks(masks, (1024, 768), (100, 75))
        if model is sam:
            expected = upscaled
    torch.testing.assert_close(upscaled, expected, rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="decoder_only"):
        sam.image_encoder(torch.zeros(1, 3, 1024, 1024))


@pytest.mark.parametrize("load", [load_sam, sam_models.check])
def test_a_checkpoint_of_another_model_is_refused_in_one_line(vit_b, load):
    _, path = vit_b
    with pytest.raises(WeightsError, match=r"sam_vit_b_01ec64.pth is not a checkpoint of vit_l"):
        load(config(path, model="vit_l"))


def test_check_needs_no_memory_for_the_weights(vit_b, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)  # it never comes to that
    assert sam_models.check(config(vit_b[1])) == vit_b[1]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Malicious()}, tmp_path / "zip.pth")
    # As torch writes it: the file of before torch 1.6 begins with a plain pickle of protocol 2.
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"weight": Malicious()}, protocol=2))
    for name in ("zip.pth", "plain.pth"):
        path = tmp_path / name
        for load in (load_sam, sam_models.check):
            with pytest.raises(WeightsError, match=rf"{name} cannot be .* objects .*\(_?io.open\)"):
                load(config(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.pth", b""), ("html.pth", b"<html>404</html>"), ("bad.safetensors", b"garbage" * 9)],
)
def test_invalid_checkpoint_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} cannot be loaded"):
        load_sam(config(path))


def test_a_training_checkpoint_is_not_a_state_dict(tmp_path):
    path = tmp_path / "training.pth"
    for content in ({"model": {"a": torch.zeros(1)}, "epoch": 3}, {1: torch.zeros(1)}):
        torch.save(content, path)
        with pytest.raises(WeightsError, match="not a plain state dict"):
            load_sam(config(path))


def test_the_sha256_is_checked(vit_b, tmp_path):
    with pytest.raises(WeightsError, match="its sha256 is"):
        load_sam(config(vit_b[1], sha256="0" * 64))
    with pytest.raises(WeightsError, match="bundled SAM: its sha256 is"):
        load_sam(SamConfig(sha256="0" * 64))


def test_safetensors_load_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sam_model_registry, "vit_b", sam_net.build_bundled_sam)  # a small one
    torch.manual_seed(0)
    state = sam_net.build_bundled_sam().state_dict()
    save_file(state, tmp_path / "sam.safetensors")
    loaded = load_sam(config(tmp_path / "sam.safetensors")).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_bundled_sam_loads():
    sam = load_sam(SamConfig())
    assert sam.image_encoder.img_size == sam_net.IMAGE_SIZE
    assert sam_models.check(SamConfig()) == sam_net.WEIGHTS
    assert load_sam(SamConfig(), decoder_only=True).image_encoder.img_size == sam_net.IMAGE_SIZE


def test_checkpoint_altered_between_hash_and_load_is_refused(vit_b, tmp_path, monkeypatch):
    _, path = vit_b
    copy = tmp_path / "sam.pth"
    copy.write_bytes(path.read_bytes())
    pinned = config(copy, sha256=digest(copy))
    read = sam_models.read_state

    def read_altered(path, model):
        with copy.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\1")
        return read(path, model)

    assert load_sam(pinned, decoder_only=True)
    monkeypatch.setattr(sam_models, "read_state", read_altered)
    with pytest.raises(WeightsError, match="was altered while it was loaded"):
        load_sam(pinned, decoder_only=True)
