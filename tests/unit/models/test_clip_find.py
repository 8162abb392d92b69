"""The choice of CLIP's weights agrees with open_clip's, which loads them."""

from __future__ import annotations

import inspect
import itertools

import open_clip
import open_clip.factory
import open_clip.pretrained
import pytest

from salip_ray.errors import ConfigError
from salip_ray.models.clip.find import parse_name, weights_in_folder

FILES = (
    *("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "other.pth"),
    *("another.safetensors", "zz.bin", "open_clip_pytorch_model.bin", "model.pth"),
)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_folder_choice_is_open_clips(tmp_path, count, caplog):
    """If this fails with a new open_clip, adapt the order in ``models/clip/find.py``."""
    for number, names in enumerate(itertools.combinations(FILES, count)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        chosen = weights_in_folder(folder)
        expected = open_clip.factory._find_checkpoint_in_dir(folder)
        assert (None if chosen is None else str(chosen)) == expected, names


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-L-14-quickgelu", "hf-hub:org/name", "local-dir:/some/folder"]
)
def test_names_are_parsed_like_open_clips(name):
    assert parse_name(name) == open_clip.factory.parse_model_name(name)


@pytest.mark.parametrize("name", ["hf-hub:", "local-dir:"])
def test_name_without_identifier_is_refused(name):
    with pytest.raises(ConfigError, match="names nothing after"):
        parse_name(name)


def test_open_clip_has_the_functions_that_are_used():
    """If this fails with a new open_clip, adapt ``models/clip/find.py``."""
    for name in ("download_pretrained", "get_pretrained_cfg", "list_pretrained_tags_by_model"):
        assert callable(getattr(open_clip, name)), name
    download = inspect.signature(open_clip.pretrained.download_pretrained_from_hf)
    assert next(iter(download.parameters)) == "model_id"
