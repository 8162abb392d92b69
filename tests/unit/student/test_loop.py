"""A resumed training ends with the weights of one that was never stopped."""

from __future__ import annotations

import math

import pytest
import torch

from salip_ray.errors import JobError, ResumeError
from salip_ray.student.loop import Total, TrainingRun
from salip_ray.student.options import StudentOptions
from salip_ray.student.unet import make_net

CPU = torch.device("cpu")


def batches(count: int = 3) -> list[dict[str, torch.Tensor]]:
    """A bright square on a dark ground, at another place each time."""
    made = []
    for index in range(count):
        target = torch.zeros(2, 32, 32, dtype=torch.int64)
        target[:, 4 + index : 20 + index, 8:24] = 1
        image = target[:, None].float().repeat(1, 3, 1, 1) * 2 - 0.5
        confidence = torch.ones(2, dtype=torch.float64)
        made.append({"image": image, "target": target, "confidence": confidence})
    return made


def course(epochs: int = 6, **options: float) -> TrainingRun:
    torch.manual_seed(0)
    chosen = StudentOptions(size=32, width=4, epochs=epochs, rate=5e-3, **options)  # type: ignore[arg-type]
    return TrainingRun(make_net(1, 4), chosen, CPU)


def run(learner: TrainingRun, epochs: int) -> None:
    for _ in range(epochs):
        learner.close_epoch(learner.learn(batches()), learner.validate(batches()))


def test_training_fits_the_labels():
    learner = course()
    run(learner, 6)
    assert learner.history[-1]["loss"] < 0.8 * learner.history[0]["loss"]
    assert learner.best_dice > 0.8


def test_a_training_that_diverges_is_stopped():
    learner = course()
    for parameter in learner.net.parameters():
        parameter.data.fill_(1e30)
    with pytest.raises(JobError, match=r"the loss of epoch 1 is .*lower rate"):
        learner.learn(batches())


def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    whole, first = course(), course()
    run(whole, 6)
    run(first, 2)
    torch.save(first.state(), tmp_path / "state.pt")
    second = course()
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    run(second, 4)
    assert second.history == whole.history
    for name, value in whole.net.state_dict().items():
        torch.testing.assert_close(second.net.state_dict()[name], value, rtol=0, atol=0)


def test_saved_weights_are_averages_of_the_steps():
    learner = course()
    run(learner, 2)
    trained = learner.net.state_dict()
    assert not all(torch.equal(learner.best[name], value) for name, value in trained.items())
    # Six steps: their average is nearer to the last than to the first one.
    first = course().net.state_dict()
    moved, left = 0.0, 0.0
    for name, value in learner.best.items():
        moved += float((value - first[name]).norm())
        left += float((value - trained[name]).norm())
    assert left < moved


def test_state_without_averages_is_refused():
    learner = course()
    state = learner.state()
    del state["averaged"]
    with pytest.raises(ResumeError, match="older version"):
        course().load_state(state)


def test_the_best_epoch_is_saved_or_the_last_without_validation():
    learner = course()
    learner.close_epoch(Total(1, 1), Total(0.9, 1))
    best = {name: value.clone() for name, value in learner.best.items()}
    learner.learn(batches())
    learner.close_epoch(Total(1, 1), Total(0.5, 1))
    assert all(torch.equal(best[name], value) for name, value in learner.best.items())
    learner.close_epoch(Total(1, 1), Total())
    assert not all(torch.equal(best[name], value) for name, value in learner.best.items())


def test_images_are_weighted_by_confidence():
    """A wrong label of no confidence leaves no trace; with power 0 it does."""
    given = batches(1)
    given[0]["target"][1] = 1 - given[0]["target"][1]
    given[0]["confidence"][1] = 0.0
    alone = [{name: value[:1] for name, value in given[0].items()}]
    weights = {}
    for name, data, power in (("both", given, 1.0), ("alone", alone, 1.0), ("alike", given, 0.0)):
        learner = course(confidence_power=power)
        learner.learn(data)
        weights[name] = next(learner.net.parameters()).detach().clone()
    torch.testing.assert_close(weights["both"], weights["alone"], rtol=0, atol=1e-6)
    assert not torch.allclose(weights["alike"], weights["alone"], rtol=0, atol=1e-4)


def test_total_of_nothing_has_no_mean():
    assert math.isnan(Total().mean)
    assert Total(3, 2).mean == pytest.approx(1.5)
