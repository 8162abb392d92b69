"""Configuration: frozen typed sections, and how they are loaded from YAML."""

from salip_ray.config.job import (
    PoolConfig,
    PoolsConfig,
    Precision,
    PrivacyConfig,
    RunConfig,
    StorageConfig,
    WaitConfig,
)
from salip_ray.config.loading import DEFAULT_PRESET, load_config, shipped_configs
from salip_ray.config.sections import (
    ClassSpec,
    ClipConfig,
    Config,
    ImageConfig,
    ProposeConfig,
    RefineConfig,
    Resize,
    RetrieveConfig,
    SamConfig,
    TaskConfig,
    Window,
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
    "PrivacyConfig",
    "ProposeConfig",
    "RefineConfig",
    "Resize",
    "RetrieveConfig",
    "RunConfig",
    "SamConfig",
    "StorageConfig",
    "TaskConfig",
    "WaitConfig",
    "Window",
    "load_config",
    "shipped_configs",
]
