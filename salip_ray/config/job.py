"""The sections ``run``, ``pools``, ``privacy`` and ``storage``: how and where a job runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from salip_ray.config.base import Fraction, Positive, Section

Mode = Literal["cascade", "unprompted", "gt_sam"]
MODES: tuple[Mode, ...] = get_args(Mode)
Precision = Literal["exact", "fast"]


class RunConfig(Section):
    """How the job runs.

    If the share of error rows is above ``max_error_share``, the command exits with 1 after it has
    finished. ``precision`` is ``exact`` (float32, the results of the official packages), ``fast``
    (bfloat16), or ``auto``: fast on GPUs, exact on CPUs. A job resolves ``auto`` once and records
    the result in ``run.json``; a resume with another result is refused.
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

    ``gpus`` is per actor and may be a fraction, so that stages share a device; null splits one GPU
    evenly among the stages if the cluster has GPUs. ``cpus`` are logical CPUs per actor; by default
    one, or a half with a GPU, or less if that does not fit. ``threads`` are torch's CPU threads per
    actor; null means one, or with GPUs a fair share of the node. Their number changes the last bits
    of scores. After ``recycle_after`` images an actor is replaced by a new one, which frees memory
    that libraries leak (null: never).
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
    """How long a job waits for nodes of a cluster that scales with its jobs.

    For up to ``seconds``, the job waits until the smallest pools fit and the cluster has at least
    ``nodes``, ``cpus`` and ``gpus`` (if given), and requests them from the autoscaler. With 0
    seconds a job that does not fit is refused at once.
    """

    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    nodes: Positive | None = None
    cpus: Annotated[float, Field(gt=0.0)] | None = None
    gpus: Annotated[float, Field(gt=0.0)] | None = None


class PoolsConfig(Section):
    """Resources of the stages. ``fetch_cpus`` are the logical CPUs of one fetch and decode task.

    With ``fused``, the actors of PROPOSE also run RETRIEVE and REFINE: no embedding leaves its
    process, and no actor waits for another stage. ``auto`` means true if there are no GPUs and the
    configuration gives neither of the two a separate pool.
    """

    fused: Literal["auto"] | bool = "auto"
    propose: PoolConfig = PoolConfig()
    retrieve: PoolConfig = PoolConfig()
    refine: PoolConfig = PoolConfig()
    fetch_cpus: Annotated[float, Field(gt=0.0)] = 0.5
    wait: WaitConfig = WaitConfig()

    @property
    def own(self) -> frozenset[str]:
        """Return those of RETRIEVE and REFINE that have a separate pool in the configuration."""
        return frozenset({"retrieve", "refine"} & self.model_fields_set)

    @model_validator(mode="after")
    def _one_pool(self) -> PoolsConfig:
        if self.fused is True and self.own:
            raise ValueError(
                f"fused is true, but {' and '.join(sorted(self.own))} has a separate pool: "
                "remove one of the settings"
            )
        return self


class PrivacyConfig(Section):
    """Which names of the input an output may contain.

    With ``hash_uris``, shards, label maps, error messages and logs name images by their id, and
    only the manifest maps ids to URIs. ``auto`` does this for DICOM files, whose names often
    contain the patient's. UIDs are hashed unless ``keep_uids`` is set.
    """

    hash_uris: Literal["auto"] | bool = "auto"
    keep_uids: bool = False


class StorageConfig(Section):
    """fsspec ``storage_options`` of each location (endpoint, anonymous access, requester pays).

    They may contain credentials and are never logged or written to the output.
    """

    input: dict[str, Any] = Field(default_factory=dict, repr=False)
    output: dict[str, Any] = Field(default_factory=dict, repr=False)
    weights: dict[str, Any] = Field(default_factory=dict, repr=False)
