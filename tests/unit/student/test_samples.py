"""What the net is shown, and in which order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from salip_ray.datasets.index import ClassFigures
from salip_ray.student.samples import Examples, MixedOrder, square_input
from salip_ray.student.targets import IGNORED, channels


def test_example_has_channels_and_ignored_padding(labels):
    examples = Examples(labels, 64, augment=False, seed=0)
    example = examples[1]
    assert example["image"].shape == (3, 64, 64)
    assert set(example["target"].unique().tolist()) == {IGNORED, 0, 1, 2}
    # 42 x 56 pixels become 48 x 64, and what is below them is no picture.
    assert (example["target"][48:] == IGNORED).all()
    sample = labels[1]
    share = (sample["labels"] == 255).mean()
    assert share > 0
    assert (example["target"][:48] == IGNORED).float().mean() == pytest.approx(share, abs=0.03)


def test_pixels_of_a_class_left_out_are_background():
    table = channels([2], 255)
    assert table[[0, 1, 2, 255]].tolist() == [0, 0, 1, IGNORED]


def test_unknown_confidence_has_full_weight(labels):
    examples = Examples(labels, 32, augment=False, seed=0)
    assert examples[0]["confidence"] == pytest.approx(labels.entries[0].confidence)
    unknown = replace(labels.entries[0], figures={"lung": ClassFigures(confidence=float("nan"))})
    labels.entries = [unknown, *labels.entries[1:]]
    assert examples[0]["confidence"] == 1.0


def test_augmentation_depends_on_seed_epoch_and_image(labels):
    def drawn(seed: int, epoch: int) -> np.ndarray:
        examples = Examples(labels, 64, augment=True, seed=seed)
        examples.epoch = epoch
        return examples[2]["image"].numpy()

    np.testing.assert_array_equal(drawn(0, 3), drawn(0, 3))
    assert not np.array_equal(drawn(0, 3), drawn(0, 4))
    assert not np.array_equal(drawn(0, 3), drawn(1, 3))


def test_every_image_is_read_once_per_epoch_with_equal_shares():
    shards = ["a"] * 5 + ["b"] * 6
    whole = MixedOrder(shards, seed=0)
    assert sorted(whole) == list(range(11))
    parts = [list(MixedOrder(shards, seed=0, rank=rank, workers=3)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert {index for part in parts for index in part} == set(range(11))
    first = list(whole)
    assert first == list(whole)
    whole.epoch = 1
    assert first != list(whole)


def test_shards_are_read_a_few_at_a_time():
    shards = [f"{i // 10}" for i in range(100)]
    first = list(MixedOrder(shards, seed=0))[:40]
    assert len({shards[index] for index in first}) == 4


def test_image_is_padded_to_a_square():
    tensor, size = square_input(np.full((100, 50, 3), 200, np.uint8), 32)
    assert (tuple(tensor.shape), size) == ((3, 32, 32), (32, 16))
