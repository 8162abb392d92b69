"""The loss counts what it should, and nothing else."""

from __future__ import annotations

import pytest
import torch

from salip_ray.student.loss import hard_dice, student_loss
from salip_ray.student.targets import IGNORED


def scene(n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 3, 8, 8, generator=generator)
    target = torch.randint(0, 3, (n, 8, 8), generator=generator)
    return logits, target


def test_loss_is_near_zero_for_right_answers_only():
    _, target = scene()
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float() * 40
    assert student_loss(right, target, torch.ones(2)) < 1e-3
    assert student_loss(right.roll(1, dims=1), target, torch.ones(2)) > 5


def test_ignored_pixels_do_not_change_the_loss():
    logits, target = scene()
    target[:, :3] = IGNORED
    before = student_loss(logits, target, torch.ones(2))
    changed = logits.clone()
    changed[:, :, :3] = 50 * torch.randn(2, 3, 3, 8)
    assert student_loss(changed, target, torch.ones(2)) == pytest.approx(before.item(), abs=1e-6)
    changed[:, :, 3] = 50
    changed[:, 0, 3] = -50
    assert student_loss(changed, target, torch.ones(2)) != pytest.approx(before.item(), abs=1e-3)


def test_ignored_pixels_get_no_gradient():
    logits, target = scene()
    target[0, :, 4:] = IGNORED
    logits.requires_grad_()
    student_loss(logits, target, torch.ones(2)).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, :, 4:].any()
    assert logits.grad[0, :, :, :4].any()


def test_images_count_by_their_weight():
    logits, target = scene()
    one, other = (
        student_loss(logits[i : i + 1], target[i : i + 1], torch.ones(1)).item() for i in range(2)
    )
    assert one != pytest.approx(other, abs=1e-3)
    mixed = student_loss(logits, target, torch.tensor([3.0, 1.0])).item()
    assert mixed == pytest.approx((3 * one + other) / 4, abs=1e-5)
    assert student_loss(logits, target, torch.tensor([0.0, 0.2])).item() == pytest.approx(
        other, abs=1e-5
    )


def test_fully_ignored_image_does_not_change_the_loss():
    logits, target = scene()
    alone = student_loss(logits[:1], target[:1], torch.ones(1))
    target[1] = IGNORED
    assert student_loss(logits, target, torch.ones(2)) == pytest.approx(alone.item(), abs=1e-6)
    assert student_loss(logits[1:], target[1:], torch.ones(1)) == 0


def test_hard_dice_counts_known_pixels_and_is_nan_without_any():
    target = torch.tensor([[[1, 1, 0, 0], [IGNORED, IGNORED, 0, 0]]])
    logits = torch.zeros(1, 3, 2, 4)
    logits[0, 1, :, :3] = 5  # class 1 on three columns of both rows
    dice = hard_dice(logits, target)
    assert dice[0, 0] == pytest.approx(2 * 2 / (4 + 2))
    assert dice[0, 1].isnan()
