"""Configuration: frozen typed sections, and how they are loaded from YAML."""

from salip_ray.config.cascade import (
    ClipConfig,
    ProposeConfig,
    RefineConfig,
    Resize,
    RetrieveConfig,
    SamConfig,
    WeightsFile,
)
from salip_ray.config.config import Config
from salip_ray.config.image import ImageConfig, Window
from salip_ray.config.job import (
    MODES,
    Mode,
    PoolConfig,
    PoolsConfig,
    Precision,
    PrivacyConfig,
    RunConfig,
    StorageConfig,
    WaitConfig,
)
from salip_ray.config.loading import DEFAULT_PRESET, load_config
from salip_ray.config.shipped import ShippedTask, shipped_configs, shipped_tasks
from salip_ray.config.task import ClassSpec, TaskConfig
from salip_ray.config.volumes import VolumesConfig

__all__ = [
    "DEFAULT_PRESET",
    "MODES",
    "ClassSpec",
    "ClipConfig",
    "Config",
    "ImageConfig",
    "Mode",
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
    "VolumesConfig",
    "WaitConfig",
    "WeightsFile",
    "Window",
    "load_config",
    "shipped_configs",
    "shipped_tasks",
]
