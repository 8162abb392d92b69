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
from salip_ray.config.loading import DEFAULT_PRESET, load_config
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
from salip_ray.config.shipped import ShippedTask, shipped_configs, shipped_tasks

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
    "ShippedTask",
    "StorageConfig",
    "TaskConfig",
    "WaitConfig",
    "Window",
    "load_config",
    "shipped_configs",
    "shipped_tasks",
]
