"""The configuration: all sections, and the recipe that decides the labels.

A *task* file defines what to label (``task``: classes, sentences, top-k, area limits). A *preset*
sets models and recipe (``sam``, ``clip``, ``propose``, ``retrieve``, ``refine``, ``volumes``,
``image``). The other sections (``run``, ``pools``, ``privacy``, ``storage``) define how and where
the job runs. :mod:`salip_ray.config.loading` merges them.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from salip_ray.config.base import Section
from salip_ray.config.cascade import (
    ClipConfig,
    ProposeConfig,
    RefineConfig,
    RetrieveConfig,
    SamConfig,
)
from salip_ray.config.image import ImageConfig
from salip_ray.config.job import PoolsConfig, PrivacyConfig, RunConfig, StorageConfig
from salip_ray.config.task import TaskConfig, limits_in_pixels
from salip_ray.config.volumes import VolumesConfig

_MODEL = ("model", "options", "weights")
#: Options that outputs of earlier versions do not have; a recipe leaves out their defaults.
_LATER_OPTIONS = {
    "task": ("signs", "min_confidence", "layered"),
    "image": ("aspect", "resample", "channels"),
    "propose": (*_MODEL, "min_area", "max_area"),
    "retrieve": (
        *_MODEL,
        "box_end",
        "box_line",
        "contour_line",
        "contours",
        "outside",
        "min_score",
    ),
    "refine": (*_MODEL, "resolution", "gt_boxes"),
}


class Config(Section):
    """The complete configuration of a job."""

    task: TaskConfig
    image: ImageConfig = ImageConfig()
    sam: SamConfig = SamConfig()
    clip: ClipConfig = ClipConfig()
    propose: ProposeConfig = ProposeConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    refine: RefineConfig = RefineConfig()
    volumes: VolumesConfig = VolumesConfig()
    run: RunConfig = RunConfig()
    pools: PoolsConfig = PoolsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _presence_can_vary(self) -> Config:
        if self.retrieve.min_presence > 0:
            others = {spec.label for spec in (*self.task.classes, *self.task.competitors)}
            for spec in self.task.classes:
                if not others - {spec.label, *self.task.companions.get(spec.label, ())}:
                    raise ValueError(
                        f"retrieve.min_presence {self.retrieve.min_presence:g} cannot work: the "
                        f"task has nothing to compare {spec.label!r} with, so its presence is "
                        "always 1. Add task.distractors"
                    )
        return self

    @model_validator(mode="after")
    def _all_has_a_limit(self) -> Config:
        every = [spec.label for spec in self.task.classes if spec.top_k == "all"]
        # Other proposers may label their candidates, and have limits themselves.
        if every and self.retrieve.min_score is None and self.propose.model == "sam":
            raise ValueError(
                f"task.top_k of {every[0]!r} is all, which needs retrieve.min_score: without it, "
                "every candidate would be one (with scoring: softmax, 0.5 is an even chance)"
            )
        return self

    @model_validator(mode="after")
    def _refiner_exists(self) -> Config:
        if self.refine.model == "none" and "gt_sam" in self.run.modes:
            raise ValueError(
                "run.modes has gt_sam, which needs a refiner, but refine.model is none"
            )
        return self

    @model_validator(mode="after")
    def _layers_stay(self) -> Config:
        if self.task.layered and self.volumes.consistent:
            raise ValueError(
                "task.layered cuts the masks of each slice, and volumes.consistent replaces them "
                "later: turn one of them off"
            )
        return self

    @property
    def least_confidence(self) -> float:
        """Return the confidence below which a class is left empty."""
        # Only the softmax tells whether the class is there; presets with cosines label all.
        return self.task.min_confidence if self.retrieve.scoring == "softmax" else 0.0

    def area_limits(self, height: int, width: int) -> tuple[float, float]:
        """Return the limits of a candidate's area in pixels; see :meth:`TaskConfig.area_limits`.

        ``propose.min_area`` and ``propose.max_area`` take precedence over those of the task.
        """
        low, high = self.propose.min_area, self.propose.max_area
        return limits_in_pixels(
            self.task.min_area if low is None else low,
            self.task.max_area if high is None else high,
            height * width,
        )

    def without_volumes(self) -> Config:
        """Return the configuration for images that are no slices of volumes."""
        return self.model_copy(update={"volumes": VolumesConfig()})

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the labels, as JSON-ready data.

        Pools, storage options and error limits may change between a run and its resume; the recipe
        may not. It is written to the output, so signatures are removed from weight addresses: the
        SHA-256 of each file says which one it was.
        """
        data = self._without_signatures()
        del data["pools"], data["storage"]
        if not self.clip.allow_untaught:
            del data["clip"]["allow_untaught"]  # outputs of earlier versions do not have it
        for section, names in _LATER_OPTIONS.items():
            for name in names:
                field = type(getattr(self, section)).model_fields[name]
                if data[section][name] == field.get_default(call_default_factory=True):
                    del data[section][name]
        if not self.volumes.consistent:
            del data["volumes"]  # outputs of earlier versions, and of images, do not have it
        data["run"] = {key: data["run"][key] for key in ("modes", "rows_per_shard", "precision")}
        return data

    def public(self) -> dict[str, Any]:
        """Return every setting as JSON-ready data, with the values of storage options hidden."""
        data = self._without_signatures()
        data["storage"] = {
            location: dict.fromkeys(options, "***") for location, options in data["storage"].items()
        }
        return data

    def _without_signatures(self) -> dict[str, Any]:
        from salip_ray.sources.locations import public_uri  # sources import the configuration

        data = self.model_dump(mode="json")
        for model, name in (
            (data["sam"], "checkpoint"),
            (data["refine"]["sam"] or {}, "checkpoint"),
            (data["clip"], "pretrained"),
            *(
                (file, "uri")
                for stage in ("propose", "retrieve", "refine")
                for file in data[stage]["weights"].values()
            ),
        ):
            if "://" in (model.get(name) or ""):
                model[name] = public_uri(model[name])
        return data
