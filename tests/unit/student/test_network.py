"""A student labels images of any size, and survives its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from salip_ray.errors import ConfigError, ImageError, WeightsError
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.student import network
from salip_ray.student.loop import TrainingRun
from salip_ray.student.network import Student, build
from salip_ray.student.options import StudentOptions
from salip_ray.student.unet import make_net


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(make_net(2, 4).eval(), {"lung": 3, "heart": 7}, 32, 4)


def test_the_network_is_the_residual_u_net_of_monai():
    """The expected values were computed by MONAI 1.6.1 with the same parameters."""
    net = make_net(2, 4).eval()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + number
            parameter.copy_((torch.sin(steps) * 0.3).reshape(parameter.shape))
        wave = torch.cos(torch.arange(3 * 32 * 48, dtype=torch.float64) * 0.13)
        logits = net(wave.reshape(1, 3, 32, 48).float())
    assert logits.shape == (1, 3, 32, 48)
    assert logits.mean().item() == pytest.approx(0.3104494512, abs=1e-5)
    assert logits.std().item() == pytest.approx(2.0051343441, abs=1e-5)
    corner = [-1.532153, 0.561663, 0.015279, 1.204494]
    assert logits[0, 0, 0, ::13].tolist() == pytest.approx(corner, abs=1e-4)


def test_masks_have_the_size_of_the_image_and_are_disjoint(student):
    image = np.random.default_rng(0).integers(0, 255, (70, 45, 3)).astype(np.uint8)
    masks = student(image)
    assert list(masks) == ["lung", "heart"]
    assert all(mask.shape == (70, 45) and mask.dtype == np.bool_ for mask in masks.values())
    assert not (masks["lung"] & masks["heart"]).any()
    label_map = student.label_map(image)
    np.testing.assert_array_equal(label_map == 7, masks["heart"])
    assert set(np.unique(label_map)) <= {0, 3, 7}


@pytest.mark.parametrize(
    "image", [np.zeros((40, 60, 3)), np.zeros((40, 60), np.uint8), np.zeros((0, 60, 3), np.uint8)]
)
def test_what_is_no_rgb_image_is_refused(student, image):
    with pytest.raises(ImageError):
        student(image)


def test_student_is_restored_from_its_file(student):
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    again = Student.from_bytes(student.to_bytes())
    assert dict(again.class_ids) == {"lung": 3, "heart": 7}
    np.testing.assert_array_equal(again.label_map(image), student.label_map(image))


def test_the_network_sam_starts_with_the_bundled_encoder_and_trains_it_gently():
    options = StudentOptions(network="sam", width=4)
    torch.manual_seed(0)
    net = build(options, 2, pretrained=True)
    before = load_bundled_sam().image_encoder.state_dict()
    for name, value in net.pretrained.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    run = TrainingRun(net, options, torch.device("cpu"))
    batch = {
        "image": torch.randn(2, 3, 256, 256),
        "target": torch.randint(0, 3, (2, 256, 256)),
        "confidence": torch.ones(2),
    }
    run.learn([batch])
    # Also in the wrapper that several workers have, and after a resume.
    for wrapped in (net, torch.nn.DataParallel(net)):
        again = TrainingRun(wrapped, options, torch.device("cpu"))
        assert [len(g["params"]) for g in again.optimiser.param_groups] == [26, 89]
    again.load_state(run.state())
    assert [group["share"] for group in again.optimiser.param_groups] == [1.0, 0.1]
    # The first step of Adam has the length of the rate in every parameter.
    moved = {name: (value - start[name]).abs().max() for name, value in net.state_dict().items()}
    assert 0 < moved["pretrained.neck.1.weight"] < 0.2 * options.rate
    assert moved["head.weight"] > 0.5 * options.rate


def test_a_student_on_the_bundled_encoder_is_restored_from_its_file():
    options = StudentOptions(network="sam", width=4)
    torch.manual_seed(0)
    net = build(options, 1, pretrained=True).eval()
    student = Student(net, {"lung": 3}, options.size, options.width, options.network)
    image = np.random.default_rng(1).integers(0, 255, (300, 190, 3)).astype(np.uint8)
    again = Student.from_bytes(student.to_bytes())
    assert again.network == "sam"
    assert again.logits(image).shape == (2, 300, 190)
    torch.testing.assert_close(again.logits(image), student.logits(image), rtol=0, atol=0)


def test_a_file_of_a_student_without_a_network_is_of_a_u_net(student):
    data = student.to_bytes().replace(
        b', \\"network\\": \\"unet\\"', b" " * len(', \\"network\\": \\"unet\\"')
    )
    assert b"network" not in data
    assert Student.from_bytes(data).network == "unet"


def test_a_file_of_nan_or_of_an_impossible_size_is_refused(student):
    for size in (0, 33, "32"):
        file = replace(student, size=size).to_bytes()
        with pytest.raises(WeightsError, match=r"it\.bin is not a trained student"):
            Student.from_bytes(file, "it.bin")
    for ids in ({"lung": "1"}, {"lung": 0}, {"": 1}, {"lung": 65_535}, {"lung": 1.0}):
        file = replace(student, class_ids=ids).to_bytes()
        with pytest.raises(WeightsError, match=r"it\.bin is not .*: its class .* has the id"):
            Student.from_bytes(file, "it.bin")
    file = replace(student, size=64, network="sam").to_bytes()
    with pytest.raises(WeightsError, match="size must be 256 with the network sam"):
        Student.from_bytes(file)
    diverged = make_net(2, 4)
    with torch.no_grad():
        next(diverged.parameters())[0] = torch.nan
    with pytest.raises(WeightsError, match=r"it\.bin has NaN or infinite weights"):
        Student.from_bytes(replace(student, net=diverged).to_bytes(), "it.bin")


def test_a_width_that_the_weights_do_not_have_takes_no_memory(student, monkeypatch):
    devices = []

    def recorded(*args, **kwargs):
        devices.append(torch.empty(0).device.type)
        return build(*args, **kwargs)

    monkeypatch.setattr(network, "build", recorded)
    with pytest.raises(WeightsError, match=r"it\.bin is not a trained student"):
        Student.from_bytes(replace(student, width=100_000).to_bytes(), "it.bin")
    assert devices == ["meta"]


@pytest.mark.parametrize("data", [b"", b"not weights at all", b"\x02" + b"\0" * 7 + b"{}"])
def test_another_file_is_refused_by_name(data):
    with pytest.raises(WeightsError, match=r"it\.bin is not a trained student"):
        Student.from_bytes(data, "it.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 100}, "size must be a multiple of 16"),
        ({"network": "sam", "size": 128}, "size must be 256 with the network sam"),
        ({"network": "vit"}, "network must be one of unet, sam, found vit"),
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"rate": 0.0}, "rate must be a number above 0"),
        ({"rate": float("inf")}, "rate must be a number above 0"),
        ({"confidence_power": float("nan")}, "confidence_power must be a number"),
        ({"val_share": 1.0}, "val_share must be from 0"),
        ({"confidence_power": -1.0}, "confidence_power must be a number and not negative"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        StudentOptions(**change)
