"""A trained student as a proposer of labelled instances (``propose.model: student``).

A job with it labels images as any other does: resumable, checked, with a row for each image. The
weights are ``student.safetensors``, the result of a training.
"""

from __future__ import annotations

import numpy as np

from salip_ray.cascade.interfaces import Instances, ModelContext
from salip_ray.errors import ConfigError, ImageError, WeightsError
from salip_ray.output.masks import Rle, component_rles, decode_rle, encode_rle
from salip_ray.schema import Image
from salip_ray.student.network import Student

_FAMILY = "propose.model student"


class StudentProposer:
    """Propose what a student segments, with the mean probability of its pixels as score.

    The mask of a class is one instance, or each of its components if the task wants several
    (``task.top_k``). No refiner is needed: ``refine.model: none``.

    Args:
        context: of the factory; its weights have ``student``, the file of a training.

    Raises:
        ConfigError: the file is not named, other weights or options are, or the student lacks a
            class of the task.
        WeightsError: the file is not a trained student.
    """

    labels_candidates = True

    def __init__(self, context: ModelContext) -> None:
        if context.options:
            raise ConfigError(f"{_FAMILY} has no options: remove {', '.join(context.options)}")
        if "student" not in context.weights:
            raise ConfigError(
                f"{_FAMILY}: propose.weights needs student: the student.safetensors of a training"
            )
        if others := sorted(context.weights.keys() - {"student"}):
            raise ConfigError(
                f"{_FAMILY} uses no propose.weights but student: remove {', '.join(others)}"
            )
        path = context.weights["student"]
        if not path.is_file():
            raise WeightsError(f"{path} is a folder: give the student.safetensors in it")
        self.student = Student.from_bytes(path.read_bytes(), str(path))
        wanted = {spec.label: spec.top_k != 1 for spec in context.task.classes}
        if absent := sorted(wanted.keys() - self.student.class_ids.keys()):
            raise ConfigError(
                f"the student {path} did not learn {', '.join(absent)}: its classes are "
                f"{', '.join(self.student.class_ids)}"
            )
        self.several = wanted
        self.max_bytes = context.config.image.max_bytes
        self.student.net.requires_grad_(False).to(context.device)

    def __call__(self, working: Image) -> Instances:
        """Return the instances of all classes in a working image, uint8 RGB [H, W, 3].

        Raises:
            ImageError: their masks do not fit in ``image.max_bytes``.
        """
        probabilities = self.student.logits(working).softmax(dim=0).cpu().numpy()
        channels = probabilities.argmax(axis=0)
        objects: list[tuple[int, str, Rle]] = []
        for channel, label in enumerate(self.student.class_ids, start=1):
            if label not in self.several:
                continue
            whole = channels == channel
            if whole.any():
                parts = component_rles(whole) if self.several[label] else [encode_rle(whole)]
                objects += [(channel, label, part) for part in parts]
        self._require_memory(len(objects), working)
        masks = np.zeros((len(objects), *working.shape[:2]), np.bool_)
        scores = np.zeros(len(objects), np.float32)
        for number, (channel, _, part) in enumerate(objects):
            masks[number] = decode_rle(part)
            scores[number] = probabilities[channel][masks[number]].mean()
        return Instances(scores, masks, labels=[label for _, label, _ in objects])

    def _require_memory(self, count: int, working: Image) -> None:
        height, width = working.shape[:2]
        needed = count * height * width
        if needed > self.max_bytes:
            raise ImageError(
                f"the student found {count:,} objects in {width} x {height} pixels, whose masks "
                f"need {needed:,} bytes, above image.max_bytes = {self.max_bytes:,}: set "
                "task.top_k to 1, lower image.long_side, or raise the limit"
            )
