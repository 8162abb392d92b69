"""A trained student: its network, the classes it knows, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from salip_ray.cascade.geometry import check_image
from salip_ray.errors import ConfigError, WeightsError
from salip_ray.models.weight_problems import state_problem
from salip_ray.output.masks import LabelMap
from salip_ray.schema import Image, Mask
from salip_ray.student.options import Network, StudentOptions
from salip_ray.student.sam_encoder import SamEncoderNet
from salip_ray.student.samples import square_input
from salip_ray.student.targets import label_map_of
from salip_ray.student.unet import make_net

_HEAD = "student"  # of the file's metadata
_LARGEST_ID = 65_534  # of a label map of 16 bits, whose last value is for pixels to ignore


def build(options: StudentOptions, n_classes: int, *, pretrained: bool = False) -> nn.Module:
    """Return the network of these options, from [n, 3, s, s] to logits [n, 1 + n_classes, s, s].

    Args:
        options: of these, ``network`` and ``width`` matter here.
        n_classes: number of classes without the background.
        pretrained: start with the weights of the bundled SAM, if the network has its encoder.
    """
    if options.network == "sam":
        return SamEncoderNet(n_classes, options.width, pretrained=pretrained)
    return make_net(n_classes, options.width)


@dataclass(frozen=True)
class Student:
    """A trained network with all that it needs to label an image.

    Attributes:
        net: the network.
        class_ids: ids in label maps by class label, in the order of the network's channels.
        size: long side of the images that the network sees, in pixels.
        width: channels at the finest resolution of the U-Net, or of the decoder.
        network: ``unet`` or ``sam``.
    """

    net: nn.Module
    class_ids: Mapping[str, int]
    size: int
    width: int
    network: Network = "unet"

    @torch.inference_mode()
    def logits(self, image: Image) -> Tensor:
        """Return the logits of each channel, float32 [1 + classes, H, W], at the image's size.

        Raises:
            ImageError: the image is not uint8 RGB [H, W, 3].
        """
        check_image(image)
        device = next(self.net.parameters()).device
        picture, (height, width) = square_input(image, self.size)
        logits = self.net(picture[None].to(device))[:, :, :height, :width]
        full = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        return full[0]

    def channels(self, image: Image) -> Tensor:
        """Return the most likely channel of each pixel, int64 [H, W], at the size of the image."""
        return self.logits(image).argmax(dim=0)

    def __call__(self, image: Image) -> dict[str, Mask]:
        """Return the mask [H, W] of each class in an image (uint8 RGB [H, W, 3])."""
        channel_map = self.channels(image).cpu().numpy()
        return {
            label: channel_map == channel for channel, label in enumerate(self.class_ids, start=1)
        }

    def label_map(self, image: Image) -> LabelMap:
        """Return the class ids [H, W] of an image, 0 for the background."""
        return label_map_of(self.channels(image).cpu().numpy(), list(self.class_ids.values()))

    def to_bytes(self) -> bytes:
        """Return the student as a safetensors file."""
        about = {
            "class_ids": dict(self.class_ids),
            "size": self.size,
            "width": self.width,
            "network": self.network,
        }
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        return save(tensors, metadata={_HEAD: json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the file") -> Student:
        """Return a student, ready to label, from the content of its file.

        Raises:
            WeightsError: the file was not made by :meth:`to_bytes`, or its weights are NaN.
        """
        try:
            length = int.from_bytes(data[:8], "little")
            about: dict[str, Any] = json.loads(
                json.loads(data[8 : 8 + length])["__metadata__"][_HEAD]
            )
            size, width = about["size"], about["width"]
            if type(size) is not int or type(width) is not int:
                raise ConfigError(f"its size is {size!r}, its width {width!r}")
            # Files without a network are older than the choice of one.
            options = StudentOptions(size=size, width=width, network=about.get("network", "unet"))
            class_ids = _usable(about["class_ids"])
            weights = load(data)
            with torch.device("meta"):  # takes no memory, whatever width the file claims
                build(options, len(class_ids)).load_state_dict(weights, assign=True)
            net = build(options, len(class_ids))
            net.load_state_dict(weights)
        except Exception as error:  # noqa: BLE001  (safetensors and torch raise many types)
            raise WeightsError(
                f"{name} is not a trained student, or is damaged: "
                f"{_reason(error)}. "
                "Give the student.safetensors that jobs/train_student.py wrote"
            ) from None
        if not all(values.isfinite().all() for values in net.state_dict().values()):
            raise WeightsError(f"{name} has NaN or infinite weights: train it again")
        return cls(net.eval(), class_ids, options.size, options.width, options.network)


def _usable(class_ids: Any) -> dict[str, int]:
    """Return the classes of a file.

    Raises:
        ConfigError: a label is empty, or an id is none of a label map's.
    """
    for label, value in dict(class_ids).items():
        if not label or type(value) is not int or not 0 < value <= _LARGEST_ID:
            raise ConfigError(f"its class {label!r} has the id {value!r}")
    return dict(class_ids)


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    return state_problem(error) or "it cannot be read"
