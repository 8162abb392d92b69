"""The weights of a preset in a folder: complete, verified, and usable without network access."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.config import ClipConfig, load_config
from salip_ray.models.clip import find
from salip_ray.models.clip.load import load_clip
from salip_ray.models.identity import identify
from salip_ray.models.sam import load as sam_models
from salip_ray.models.weights import digest


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Repositories as the hub's cache has them: a CLIP with a BERT as text tower, and the BERT."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("hub")
    bert, clip = folder / "owner--bert", folder / "owner--clip"
    bert.mkdir()
    vocabulary = {"<pad>": 0, "<unk>": 1, "a": 2, "lung": 3}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    t.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(bert)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    t.BertConfig(vocab_size=6, intermediate_size=16, **small).save_pretrained(bert)
    clip.mkdir()
    model_cfg = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "patch_size": 8,
            "head_width": 8,
        },
        "text_cfg": {
            "hf_model_name": str(bert),
            "hf_tokenizer_name": str(bert),
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "hf_model_pretrained": False,
            "context_length": 16,
        },
    }
    config = clip / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{clip}", load_weights=False, pretrained_hf=False)
    save_file(model.state_dict(), clip / "open_clip_model.safetensors")
    model_cfg["text_cfg"] |= {"hf_model_name": "owner/bert", "hf_tokenizer_name": "owner/bert"}
    config.write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    return folder


@pytest.fixture
def network(hub, monkeypatch):
    """Serve the repositories in the place of the hub."""

    def repository(name, **_):
        return hub / name.replace("/", "--")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", repository)
    monkeypatch.setattr(
        find,
        "download_pretrained_from_hf",
        lambda name, **_: repository(name) / "open_clip_model.safetensors",
    )


@pytest.fixture
def preset(tmp_path):
    """A preset with a SAM file, a CLIP of the hub, and weights of a family."""
    (tmp_path / "sam.pth").write_bytes(b"weights of SAM")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    sections = {
        "sam": {"model": "vit_b", "checkpoint": str(tmp_path / "sam.pth")},
        "clip": {"model": "hf-hub:owner/clip"},
        "propose": {"points_per_side": 8},
        "refine": {"model": "sam2", "weights": {"model": str(tmp_path / "folder")}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def fetch(*arguments):
    return CliRunner().invoke(app, ["weights", "fetch", *map(str, arguments)])


def test_the_folder_holds_all_weights_and_a_preset_that_names_them(network, preset, tmp_path):
    target = tmp_path / "weights"
    done = fetch("--preset", preset, target)
    assert done.exit_code == 0, done.output
    assert f"--preset {target}/preset.yaml" in done.output.replace("\n", "")
    preset.unlink()
    config = load_config(
        {"task": {"name": "x", "prompts": {"lung": ["a lung"]}}}, preset=target / "preset.yaml"
    )
    assert config.propose.points_per_side == 8
    assert config.sam.checkpoint == str(target / "sam.pth")
    assert config.sam.sha256 == digest(tmp_path / "sam.pth")
    assert config.refine.weights["model"].uri == str(target / "folder")
    assert sam_models.checkpoint(config.sam, None) == target / "sam.pth"


def test_a_clip_of_the_hub_loads_from_the_folder_with_its_text_tower(
    network, preset, tmp_path, monkeypatch
):
    target = tmp_path / "weights"
    assert fetch("--preset", preset, target).exit_code == 0
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    clip = ClipConfig(**yaml.safe_load((target / "preset.yaml").read_text())["clip"])
    assert clip.model == f"local-dir:{target}/owner--clip"
    features = load_clip(clip).encode_texts(["a lung", "a"])
    assert features.shape == (2, 12)
    assert not torch.equal(features[0], features[1])


def test_the_folder_may_be_used_under_another_path(network, preset, tmp_path):
    target, moved = tmp_path / "weights", tmp_path / "mounted"
    assert fetch("--preset", preset, target, "--as", moved).exit_code == 0
    shutil.move(target, moved)
    saved = yaml.safe_load((moved / "preset.yaml").read_text())
    assert saved["sam"]["checkpoint"] == f"{moved}/sam.pth"
    text = json.loads((moved / "owner--clip" / "open_clip_config.json").read_text())
    assert text["model_cfg"]["text_cfg"]["hf_model_name"] == f"{moved}/owner--clip/text"


def test_the_bundled_models_need_no_weights(tmp_path):
    done = fetch("--preset", "bundled", tmp_path / "weights")
    assert "bundled needs no weights but those of the package" in done.output
    config = load_config("lungs", preset=tmp_path / "weights" / "preset.yaml")
    assert identify(config) == identify(load_config("lungs"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper-2d", "--as", "x"], "--as needs --preset"),
        (["x", "--preset", "paper-2d", "--sha256", "0" * 64], "--sha256 is for one file"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message):
    done = fetch(*arguments)
    assert done.exit_code == 2
    assert message in done.output
