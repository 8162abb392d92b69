"""Messages about weights files that cannot be loaded: one line, the file, the cause, what to do."""

from __future__ import annotations

import argparse
import zipfile

import open_clip
import pytest
import torch
from segment_anything import sam_model_registry

from salip_ray.config import ClipConfig, SamConfig
from salip_ray.errors import WeightsError
from salip_ray.models.bundled import sam_net
from salip_ray.models.clip.load import load_clip
from salip_ray.models.sam.load import load_sam
from salip_ray.models.weight_problems import load_problem

_TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


@pytest.fixture(autouse=True)
def small_models(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIP_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sam_model_registry, "vit_b", sam_net.build_bundled_sam)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", _TINY)


def load_as_sam(path):
    load_sam(SamConfig(model="vit_b", checkpoint=str(path)))


def load_as_clip(path):
    load_clip(ClipConfig(model="tiny", pretrained=str(path)))


def truncated_zip(path):
    torch.save({"x": torch.zeros(30_000)}, path)
    path.write_bytes(path.read_bytes()[:9000])


def training_checkpoint(path):
    torch.save({"args": argparse.Namespace(lr=1), "weight": torch.zeros(2)}, path)


CASES = {
    "empty.pth": (lambda path: path.write_bytes(b""), "the file is empty; fetch the file again"),
    "page.pth": (lambda path: path.write_bytes(b"<!doctype html>404"), "it is a web page"),
    "denied.pt": (lambda path: path.write_bytes(b"<?xml ?><Error>"), "an error message"),
    "pointer.pth": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
        "pointer of Git LFS, not the weights: run `git lfs pull`",
    ),
    "short.pth": (truncated_zip, "it ends early, after 9,000 bytes; fetch the file again"),
    "noise.pth": (lambda path: path.write_bytes(b"garbage" * 99), "damaged, or neither"),
    "noise.safetensors": (lambda path: path.write_bytes(b"garbage" * 99), "damaged, or neither"),
    "training.pth": (training_checkpoint, r"Python objects .*\(argparse.Namespace\).* state dict"),
}


@pytest.mark.parametrize("load", [load_as_sam, load_as_clip])
@pytest.mark.parametrize("name", CASES)
def test_broken_file_is_one_line_with_file_cause_and_remedy(tmp_path, name, load):
    write, expected = CASES[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(WeightsError, match=expected) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "weights_only" not in message
    assert len(message) < len(str(path)) + 400


def test_weights_of_another_clip_name_one_tensor_and_count_the_others(tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "wide", {**_TINY, "embed_dim": 24})
    path = tmp_path / "wide.pt"
    torch.save(open_clip.create_model("wide").state_dict(), path)
    with pytest.raises(WeightsError) as caught:
        load_as_clip(path)
    assert str(caught.value) == (
        f"{path} cannot be loaded as tiny: it holds the weights of another model: text_projection "
        "is (32, 24) in the file, (32, 16) in the model (2 tensors in all). "
        "Name the model that the file was made for, or another file"
    )


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    model = torch.nn.Linear(2, 2)
    for state, expected in (
        ({}, "the file has no weight (2 tensors in all)"),
        ({**model.state_dict(), "more": torch.zeros(1)}, "the model has no more (1 tensor in all)"),
    ):
        with pytest.raises(RuntimeError) as caught:
            model.load_state_dict(state)
        assert expected in str(load_problem(tmp_path / "a.pt", caught.value, "it"))


def test_unreadable_file_says_why(tmp_path):
    problem = load_problem(tmp_path / "a.pt", PermissionError(13, "Permission denied"), "vit_b")
    assert str(problem).endswith("a.pt cannot be loaded as vit_b: Permission denied")


def test_whole_zip_of_other_content_is_not_called_short(tmp_path):
    path = tmp_path / "other.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no weights")
    with pytest.raises(WeightsError, match="damaged, or neither"):
        load_as_sam(path)
