"""Means of exported weights."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.bundled.clip_net import WEIGHTS, load_bundled_clip
from training.averaging import average


def write(path, **tensors):
    save_file(tensors, path, metadata={"tokens": "7"})
    return path


def test_files_are_weighted_by_their_shares(tmp_path):
    one = write(tmp_path / "1", w=torch.tensor([0.0, 4.0]).half(), n=torch.tensor([3]))
    two = write(tmp_path / "2", w=torch.tensor([4.0, 0.0]).half(), n=torch.tensor([3]))
    average([one, two], [1, 3], tmp_path / "mean")
    mean = load_file(tmp_path / "mean")
    assert torch.equal(mean["w"], torch.tensor([3.0, 1.0]).half())
    assert torch.equal(mean["n"], torch.tensor([3]))
    with safe_open(tmp_path / "mean", "pt") as file:
        assert file.metadata() == {"tokens": "7"}


def test_the_mean_of_shipped_weights_with_themselves_is_a_model(tmp_path):
    average([WEIGHTS, WEIGHTS], [1, 1], tmp_path / "mean")
    mean, shipped = load_file(tmp_path / "mean"), load_file(WEIGHTS)
    assert all(torch.equal(mean[name], tensor) for name, tensor in shipped.items())
    load_bundled_clip(tmp_path / "mean")


@pytest.mark.parametrize(
    ("other", "shares", "error"),
    [
        ({"w": torch.zeros(3), "n": torch.tensor([3])}, [1, 1], WeightsError),
        ({"w": torch.zeros(2), "n": torch.tensor([4])}, [1, 1], WeightsError),
        ({"w": torch.zeros(2)}, [1, 1], WeightsError),
        ({"w": torch.zeros(2), "n": torch.tensor([3])}, [1], ConfigError),
        ({"w": torch.zeros(2), "n": torch.tensor([3])}, [1, 0], ConfigError),
    ],
)
def test_files_without_a_mean_are_refused(tmp_path, other, shares, error):
    one = write(tmp_path / "1", w=torch.zeros(2), n=torch.tensor([3]))
    two = write(tmp_path / "2", **other)
    with pytest.raises(error):
        average([one, two], shares, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
