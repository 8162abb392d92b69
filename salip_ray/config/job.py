"""The sections that say how and where a job runs: ``run``, ``pools``, ``privacy``, ``storage``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from salip_ray.config.base import Fraction, Positive, Section

Mode = Literal["cascade", "unprompted", "gt_sam"]
Precision = Literal["exact", "fast"]


class RunConfig(Section):
    """How the job runs.

    ``max_error_share`` is the share of error rows above which the command exits non-zero, after it
    has finished. ``precision`` is ``exact`` (float32, the official packages' results), ``fast``
    (bfloat16), or ``auto``: fast on a GPU, exact on a CPU; name one where a job may move between
    the two.
    """

    modes: tuple[Mode, ...] = ("cascade",)
    rows_per_shard: Positive = 1024
    max_error_share: Fraction = 0.05
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "exact", "fast"] = "auto"

    @field_validator("modes")
    @classmethod
    def _distinct(cls, modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
        if not modes or len(set(modes)) != len(modes):
            raise ValueError(f"modes must be distinct and at least one, found {list(modes)}")
        return modes


class PoolConfig(Section):
    """The actors of one stage: a fixed ``size``, or from ``min_size`` to ``max_size``.

    ``gpus`` may be a fraction, so that stages share a device; null means 1 GPU split evenly where
    the cluster has one, else none. Where ``cpus`` is left out, an actor asks for half a logical CPU
    beside a GPU, else for one, or for less where that would not fit. ``threads`` are torch's CPU
    threads per actor (null: one, and with GPUs a fair share of the node); their number shows in the
    last bits of scores. After ``recycle_after`` images an actor ends and is started anew, for
    libraries that leak memory (null: never).
    """

    size: Positive | None = None
    min_size: Positive | None = None
    max_size: Positive | None = None
    gpus: Annotated[float, Field(ge=0.0)] | None = None
    cpus: Annotated[float, Field(gt=0.0)] = 1.0
    threads: Positive | None = None
    recycle_after: Positive | None = None

    @model_validator(mode="after")
    def _one_way(self) -> PoolConfig:
        if self.size is not None and (self.min_size or self.max_size):
            raise ValueError("give size, or min_size and max_size, not both")
        if self.min_size and self.max_size and self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} is above max_size {self.max_size}")
        return self


class WaitConfig(Section):
    """Nodes that are still to come, as on a cluster that grows with its jobs.

    For up to ``seconds`` the job waits until the smallest pools fit and the cluster has at least
    ``nodes``, ``cpus`` and ``gpus``, where they are given; meanwhile it asks the autoscaler for
    them. With 0 seconds it is refused at once.
    """

    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    nodes: Positive | None = None
    cpus: Annotated[float, Field(gt=0.0)] | None = None
    gpus: Annotated[float, Field(gt=0.0)] | None = None


class PoolsConfig(Section):
    """Resources of the stages. ``fetch_cpus`` is what one fetch + decode task asks for.

    ``fused`` has PROPOSE's actors do RETRIEVE and REFINE, too, so that no embedding leaves its
    process and no actor waits for another stage. ``auto`` does so where there are no GPUs and
    neither of the two has a pool of its own in the configuration.
    """

    fused: Literal["auto"] | bool = "auto"
    propose: PoolConfig = PoolConfig()
    retrieve: PoolConfig = PoolConfig()
    refine: PoolConfig = PoolConfig()
    fetch_cpus: Annotated[float, Field(gt=0.0)] = 0.5
    wait: WaitConfig = WaitConfig()

    @property
    def own(self) -> frozenset[str]:
        """Of RETRIEVE and REFINE those that the configuration gives a pool of their own."""
        return frozenset({"retrieve", "refine"} & self.model_fields_set)

    @model_validator(mode="after")
    def _one_pool(self) -> PoolsConfig:
        if self.fused is True and self.own:
            raise ValueError(
                f"fused is true, but {' and '.join(sorted(self.own))} "
                "would have a pool of its own: leave one of them out"
            )
        return self


class PrivacyConfig(Section):
    """What of an input's names an output may hold.

    With ``hash_uris`` the paths of images stay out of shards, label maps, error messages and logs,
    which name images by their id; the manifest alone maps ids to URIs. ``auto`` does so for DICOM
    files, whose names often hold the patient's. UIDs are hashed, too, unless ``keep_uids``.
    """

    hash_uris: Literal["auto"] | bool = "auto"
    keep_uids: bool = False


class StorageConfig(Section):
    """fsspec ``storage_options`` for each location (endpoint, anonymous access, requester pays).

    They may hold credentials, and are therefore never written to the output nor logged.
    """

    input: dict[str, Any] = Field(default_factory=dict, repr=False)
    output: dict[str, Any] = Field(default_factory=dict, repr=False)
    weights: dict[str, Any] = Field(default_factory=dict, repr=False)
