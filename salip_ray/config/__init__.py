"""Configuration: frozen typed sections, and how they are loaded from YAML."""

from salip_ray.config.loading import DEFAULT_PRESET, load_config, shipped_configs
from salip_ray.config.sections import (
    ClassSpec,
    ClipConfig,
    Config,
    ImageConfig,
    PoolConfig,
    PoolsConfig,
    Precision,
    ProposeConfig,
    RefineConfig,
    Resize,
    RetrieveConfig,
    RunConfig,
    SamConfig,
    StorageConfig,
    TaskConfig,
)

__all__ = [
    "DEFAULT_PRESET",
    "ClassSpec",
    "ClipConfig",
    "Config",
    "ImageConfig",
    "PoolConfig",
    "PoolsConfig",
    "Precision",
    "ProposeConfig",
    "RefineConfig",
    "Resize",
    "RetrieveConfig",
    "RunConfig",
    "SamConfig",
    "StorageConfig",
    "TaskConfig",
    "load_config",
    "shipped_configs",
]
