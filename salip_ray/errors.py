"""The exceptions of salip_ray, all of them.

    SalipError
    ├── ConfigError (ValueError)         a task, preset or --set value is wrong
    ├── InputError (ValueError)          no input found, a manifest that cannot be read
    │   └── ImageError                   one image cannot be read: becomes an ``error`` row
    ├── WeightsError (ValueError)        a checkpoint is missing, altered or of another shape
    ├── OutputError (ValueError)         OUTPUT is not ours, or cannot be written
    │   ├── StoreError                   the store of OUTPUT refuses a request, or does not answer
    │   ├── NoJobError                   OUTPUT holds nothing of a job, or not yet
    │   ├── ResumeError                  OUTPUT was begun by another job; says what changed
    │   └── LeaseError                   OUTPUT is being written by another driver
    ├── ResourceError (RuntimeError)     the pools do not fit the machine or cluster
    ├── ClusterError (RuntimeError)      a Ray cluster cannot be reached, or refuses the job
    ├── JobError (RuntimeError)          a job ended, but not well; labels break a promise
    └── MissingDependencyError (ImportError)

A message names the file or field, the value found, and what would be right. The command line
prints it as one line; ``ImageError`` never ends a job.
"""

from __future__ import annotations


class SalipError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(SalipError, ValueError):
    """A configuration value is missing, unknown or out of range."""


class InputError(SalipError, ValueError):
    """The input location holds nothing usable, or its manifest is malformed."""


class ImageError(InputError):
    """One image cannot be read or decoded."""


class WeightsError(SalipError, ValueError):
    """A checkpoint is missing, does not match its sha256, or does not fit the model."""


class OutputError(SalipError, ValueError):
    """The output location cannot be used."""


class StoreError(OutputError):
    """The store of an output refuses a request or does not answer."""


class NoJobError(OutputError):
    """The output holds nothing of a job, or not yet."""


class ResumeError(OutputError):
    """The output was begun by a job that differs from this one."""


class LeaseError(OutputError):
    """Another driver writes to the output."""


class ResourceError(SalipError, RuntimeError):
    """The actor pools ask for more than the cluster has."""


class ClusterError(SalipError, RuntimeError):
    """A Ray cluster or its job server cannot be reached, or refuses what is asked of it."""


class JobError(SalipError, RuntimeError):
    """The job ran to its end, but its result is not acceptable."""


class MissingDependencyError(SalipError, ImportError):
    """An optional package is needed; the message holds the command that installs it."""

    def __init__(self, package: str, needed_for: str, extra: str | None = None) -> None:
        target = f"'salip-ray[{extra}]'" if extra else package
        super().__init__(f"{needed_for} needs the package {package}: pip install {target}")
