"""Checks of this machine, for :mod:`salip_ray.cluster.doctor`."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from salip_ray.cluster.session import OBJECT_STORE, local_cores
from salip_ray.config import Config
from salip_ray.models.identity import uses_sam
from salip_ray.models.weights import cache_dir
from salip_ray.version import VERSION

_GIB = 1024**3
_FREE_BYTES = 20 * _GIB
_OPEN_FILES = 4096


class Advice(Exception):  # noqa: N818  (it is advice)
    """A check failed; ``fatal`` if a job would fail, too."""

    def __init__(self, message: str, *, fatal: bool = True) -> None:
        super().__init__(message)
        self.fatal = fatal


def versions() -> str:
    """Return the versions of the packages that a job depends on."""
    versions = [f"python {platform.python_version()}", f"salip-ray {VERSION}"]
    versions += [f"{name} {version(name)}" for name in ("ray", "torch", "pyarrow")]
    return ", ".join(versions)


def device(config: Config) -> str:
    """Return the GPUs of this machine."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return ", ".join(f"{gpu.name} ({gpu.total_memory / _GIB:.0f} GiB)" for gpu in names)
    if config.run.device == "cuda":
        raise Advice("run.device is cuda, but torch sees no GPU: check the driver (nvidia-smi)")
    if uses_sam(config) and config.sam.model != "bundled":
        raise Advice(
            f"no GPU here, and sam.model {config.sam.model} takes a minute or so an image on a "
            "CPU: fine where the cluster's workers have GPUs",
            fatal=False,
        )
    return f"no GPU; {local_cores()} CPU cores will do the work"


def shared_memory(folder: str = "/dev/shm") -> str:  # noqa: S108  (where Ray's object store lies)
    """Return the free memory for Ray's object store."""
    if not Path(folder).is_dir():
        return "this system has no /dev/shm; Ray keeps its objects elsewhere"
    free = shutil.disk_usage(folder).free
    if free < OBJECT_STORE:
        raise Advice(
            f"{folder} has {free / _GIB:.1f} GiB free, Ray's object store takes "
            f"{OBJECT_STORE / _GIB:.0f} and would go to disk: docker run --shm-size=8g, or an "
            "emptyDir of medium Memory on Kubernetes",
            fatal=False,
        )
    return f"{free / _GIB:.1f} GiB free in {folder}"


def disk() -> str:
    """Return the free disk space for weights and for what Ray spills."""
    free_space = []
    for folder in (Path(tempfile.gettempdir()), _existing(cache_dir())):
        free = shutil.disk_usage(folder).free
        if free < _FREE_BYTES:
            raise Advice(
                f"{folder} has {free / _GIB:.1f} GiB free of the {_FREE_BYTES / _GIB:.0f} that are "
                "safe: free some, or point RAY_TMPDIR or SALIP_RAY_CACHE at a larger disk",
                fatal=False,
            )
        free_space.append(f"{free / _GIB:.0f} GiB free in {folder}")
    return ", ".join(dict.fromkeys(free_space))


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def open_files() -> str:
    """Return the limit of open files, which Ray's connections reach first."""
    if sys.platform == "win32":
        return "no limit on this system"
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        raise Advice(
            f"at most {soft} open files: ulimit -n 65536 (allowed: {hard}) before Ray is started",
            fatal=False,
        )
    return f"at most {soft}"
