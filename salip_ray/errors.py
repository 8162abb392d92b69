"""The exceptions of salip_ray that a caller may catch; modules derive their own from them.

    SalipError
    ├── ConfigError (ValueError)         a task, preset or --set value is wrong
    ├── InputError (ValueError)          no input, or a manifest or mask that cannot be read
    │   └── ImageError                   one image cannot be read; it becomes an error row
    ├── WeightsError (ValueError)        a checkpoint is missing, altered or of another model
    ├── ModelError (ValueError)          a model of another package fails, or returns nonsense
    ├── OutputError (ValueError)         the output is not of salip_ray, or cannot be written
    │   ├── NoJobError                   the output holds no job (yet)
    │   ├── ResumeError                  the output belongs to another job; names what differs
    │   ├── LeaseError                   another driver is writing the output
    │   └── StoreError                   the store refuses a request, or does not answer
    ├── ResourceError (RuntimeError)     the actor pools do not fit the machine or cluster
    ├── ClusterError (RuntimeError)      a Ray cluster cannot be reached, or refuses the job
    ├── JobError (RuntimeError)          a job was stopped, broke down, or has too many error rows
    └── MissingDependencyError (ImportError)

A message says what happened, names the file or field and the value, and gives the remedy. The
command line prints it as one line. ``ImageError`` never ends a job.
"""

from __future__ import annotations


class SalipError(Exception):
    """Base of every error that this package raises on purpose.

    Examples:
        >>> from salip_ray import SalipError, load_config
        >>> try:
        ...     load_config("lungz")
        ... except SalipError as error:
        ...     print(error)
        no task named 'lungz': did you mean lungs?
    """


class ConfigError(SalipError, ValueError):
    """A configuration value is missing, unknown or out of range.

    Examples:
        >>> from salip_ray import load_config
        >>> load_config("lungs", overrides=["task.top_k=0"])
        Traceback (most recent call last):
        salip_ray.errors.ConfigError: --set: task.top_k: must be above 0, found 0
    """


class InputError(SalipError, ValueError):
    """The input holds nothing usable, or a manifest or mask cannot be read.

    Examples:
        >>> from salip_ray import label, load_config
        >>> label("no-such-folder", "new-labels", load_config("lungs"), quiet=True)
        Traceback (most recent call last):
        salip_ray.errors.InputError: ...
    """


class ImageError(InputError):
    """One image cannot be read or decoded.

    A job records it as a row of status ``error`` and continues.

    Examples:
        >>> import numpy as np
        >>> from salip_ray import Cascade, load_config
        >>> Cascade(load_config("lungs"))(np.zeros((64, 64), np.float32))
        Traceback (most recent call last):
        salip_ray.errors.ImageError: ...
    """


class WeightsError(SalipError, ValueError):
    """A checkpoint is missing, has another SHA-256, or does not fit the model.

    Examples:
        >>> from salip_ray import Cascade, load_config
        >>> own = ["sam.model=vit_b", "sam.checkpoint=no-such-file.pth"]
        >>> Cascade(load_config("lungs", overrides=own))
        Traceback (most recent call last):
        salip_ray.errors.WeightsError: ...
    """


class ModelError(SalipError, ValueError):
    """A model of another package cannot be built, or returns something that cannot be used.

    On an image of a job, it becomes an error row.

    Example:
        >>> import numpy as np
        >>> from salip_ray import Cascade, load_config
        >>> def propose(working):
        ...     return "no instances"
        >>> Cascade(load_config("lungs"), propose=propose)(np.zeros((64, 64, 3), np.uint8))
        Traceback (most recent call last):
        salip_ray.errors.ModelError: ...
    """


class OutputError(SalipError, ValueError):
    """The output cannot be used.

    Examples:
        >>> from salip_ray import label, load_config
        >>> label("xrays", "xrays", load_config("lungs"), quiet=True)
        Traceback (most recent call last):
        salip_ray.errors.OutputError: ...
    """


class NoJobError(OutputError):
    """The output holds no job, or not yet.

    Examples:
        >>> from salip_ray import status
        >>> status("xrays")
        Traceback (most recent call last):
        salip_ray.errors.NoJobError: ...
    """


class ResumeError(OutputError):
    """The output belongs to a job that differs from this one.

    Examples:
        >>> from salip_ray import label, load_config
        >>> label("xrays", "labels", load_config("brain"), quiet=True)
        Traceback (most recent call last):
        salip_ray.errors.ResumeError: ...
    """


class LeaseError(OutputError):
    """Another driver is writing the output.

    Examples:
        >>> from salip_ray import LeaseError, label, load_config
        >>> try:
        ...     summary = label("xrays", "labels", load_config("lungs"), quiet=True)
        ... except LeaseError:
        ...     print("another driver is running: wait for it")
    """


class StoreError(OutputError):
    """The store of an output refuses a request or does not answer.

    Examples:
        >>> from salip_ray import StoreError, OutputError
        >>> issubclass(StoreError, OutputError)
        True
    """


class ResourceError(SalipError, RuntimeError):
    """The actor pools need more CPUs or GPUs than the cluster has.

    Examples:
        >>> from salip_ray import label, load_config
        >>> large = load_config("lungs", overrides=["pools.propose.size=10000"])
        >>> label("xrays", "new-labels", large, quiet=True)
        Traceback (most recent call last):
        salip_ray.errors.ResourceError: ...
    """


class ClusterError(SalipError, RuntimeError):
    """A Ray cluster or its job server cannot be reached, or refuses a request.

    Examples:
        >>> from salip_ray import ClusterError, SalipError
        >>> issubclass(ClusterError, SalipError), issubclass(ClusterError, RuntimeError)
        (True, True)
    """


class JobError(SalipError, RuntimeError):
    """A job was stopped, broke down, or finished with too many error rows.

    Examples:
        >>> from salip_ray import JobError, SalipError
        >>> issubclass(JobError, SalipError), issubclass(JobError, RuntimeError)
        (True, True)
    """


class MissingDependencyError(SalipError, ImportError):
    """An optional package is needed; the message holds the command that installs it.

    Examples:
        >>> from salip_ray import MissingDependencyError
        >>> print(MissingDependencyError("gcsfs", "gs:// locations", "gcs"))
        gs:// locations needs the package gcsfs: pip install 'salip-ray[gcs]'
    """

    def __init__(self, package: str, needed_for: str, extra: str | None = None) -> None:
        target = f"'salip-ray[{extra}]'" if extra else package
        super().__init__(f"{needed_for} needs the package {package}: pip install {target}")
