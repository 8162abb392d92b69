"""A labelling job on a cluster elsewhere, by way of Ray's job server.

What travels is one file: the whole configuration, checked here first. It holds the task's sentences
and may hold storage options with credentials, so it goes as a file of the job, which the dashboard
does not show, and never on the command line, which it does. The package itself is what the cluster
has installed, unless it is told to travel along.

One output has one writer: a second submission of the same job joins the one that runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from salip_ray.config import Config
from salip_ray.errors import ClusterError
from salip_ray.sources.locations import normalise, public_uri

_JOB_FILE = "job.yaml"
_OUTPUT_KEY, _FINGERPRINT_KEY = "salip_output", "salip_job"
_POLL_SECONDS = 1.0
#: A stopped job may finish the commits under way; Ray alone would kill it after three seconds.
_STOP_SECONDS = 150


@dataclass(frozen=True)
class Submitted:
    """A job on the cluster; ``joined`` where it ran already."""

    job_id: str
    joined: bool = False


def connect(address: str) -> JobSubmissionClient:
    """The job server at ``address``, as in ``http://head:8265``.

    Raises:
        ClusterError: nothing answers there, or it asks for a token.
    """
    if not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address!r} must be that of the job server, as in http://head:8265"
        )
    try:
        return JobSubmissionClient(address)
    except Exception as problem:  # noqa: BLE001  (Ray and requests raise what they like)
        raise ClusterError(f"no job server answers at {address}: {_said(problem)}") from None


def ray_version_of(client: JobSubmissionClient) -> str:
    """Return the version of Ray on the cluster.

    ``client.get_version()`` returns the version of the job API, which is another number.

    Raises:
        ClusterError: the server does not report its version.
    """
    try:
        return str(client._do_request("GET", "/api/version").json()["ray_version"])
    except Exception as problem:  # noqa: BLE001  (Ray and requests raise what they like)
        raise ClusterError(
            f"the job server does not report its version: {_said(problem)}"
        ) from None


def submit(
    client: JobSubmissionClient,
    input: str,  # noqa: A002  (the word a person would use)
    output: str,
    config: Config,
    *,
    references: str | None = None,
    python: str = "python",
    ship: bool = False,
) -> Submitted:
    """Start ``salip-ray label`` on the cluster, or join the same job where it runs already.

    Args:
        client: from :func:`connect`.
        input: as for :func:`salip_ray.label`; a local path must be the same on every node.
        output: likewise.
        config: from :func:`salip_ray.load_config`.
        references: reference masks for the mode ``gt_sam``.
        python: the interpreter, as the cluster knows it.
        ship: send this installation of the package along, instead of using the cluster's.

    Raises:
        ClusterError: the server refuses, another job is writing to the output, or a location holds
            what gives access to it.
    """
    command = [python, "-m", "salip_ray", "label", _shown("INPUT", input), _shown("OUTPUT", output)]
    command += ["--config", _JOB_FILE]
    if references is not None:
        command += ["--reference", _shown("--reference", references)]
    data = config_file(config)
    fingerprint = hashlib.sha256(f"{command}\n{data}".encode()).hexdigest()
    where = public_uri(output)
    try:
        if running := _writing_to(client, where):
            if (running.metadata or {}).get(_FINGERPRINT_KEY) != fingerprint:
                raise ClusterError(
                    f"job {running.submission_id} is writing to {where} with another command or "
                    f"configuration: stop it first, or give another output"
                )
            return Submitted(str(running.submission_id), joined=True)
        with tempfile.TemporaryDirectory(prefix="salip-ray-") as folder:
            Path(folder, _JOB_FILE).write_text(data, encoding="utf-8")
            environment: dict[str, Any] = {
                "working_dir": folder,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)},
            }
            if ship:
                environment["py_modules"] = [str(Path(__file__).resolve().parents[1])]
            job_id = client.submit_job(
                entrypoint=shlex.join(command),
                runtime_env=environment,
                metadata={_OUTPUT_KEY: where, _FINGERPRINT_KEY: fingerprint},
            )
    except (RuntimeError, OSError) as problem:
        if isinstance(problem, ClusterError):
            raise
        raise ClusterError(f"the job server refused the job: {_said(problem)}") from None
    return Submitted(job_id)


def _shown(name: str, location: str) -> str:
    """A location as it stands on the command line, which the dashboard shows."""
    if public_uri(location) != normalise(location):
        raise ClusterError(
            f"{name} {public_uri(location)} was given with a signature or a password, which the "
            "dashboard would show: use storage options, or a manifest file of signed addresses"
        )
    return normalise(location)


def config_file(config: Config) -> str:
    """The configuration as a task file that says everything, so that no preset adds to it."""
    data = config.model_dump(mode="json")
    # Pools are planned on the cluster: what was left open must stay open.
    data["pools"] = config.pools.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _writing_to(client: JobSubmissionClient, output: str) -> JobDetails | None:
    for job in client.list_jobs():
        ours = (job.metadata or {}).get(_OUTPUT_KEY) == output
        if ours and job.submission_id and not job.status.is_terminal():
            return job
    return None


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], object]) -> int:
    """Hand on a job's log until the job is over; the job does not notice who reads it.

    Args:
        client: from :func:`connect`.
        job_id: as :func:`submit` gave it.
        write: called with successive parts of the log.

    Returns:
        The job's exit code: 0 where it succeeded; that of the driver, or 1, where it failed or was
        stopped.

    Raises:
        ClusterError: the job is not known, or the server has been gone for a minute.
    """
    seen = 0
    lost_since: float | None = None

    async def tail() -> None:
        nonlocal seen
        skip = seen  # a new connection begins at the log's beginning
        async for text in client.tail_job_logs(job_id):
            fresh, skip = text[skip:], max(0, skip - len(text))
            seen += len(fresh)
            if fresh:
                write(fresh)

    while True:
        try:
            asyncio.run(tail())
            info = client.get_job_info(job_id)
            lost_since = None
            if info.status.is_terminal():
                write(client.get_job_logs(job_id)[seen:])
                break
        except Exception as problem:  # noqa: BLE001  (a connection fails in many ways)
            if "does not exist" in str(problem):
                raise ClusterError(f"there is no job {job_id}: {_said(problem)}") from None
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > 60:
                raise ClusterError(
                    f"the job server has not answered for a minute ({_said(problem)}); the job may "
                    "well go on: give the same command to join it again"
                ) from None
        time.sleep(_POLL_SECONDS)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    return max(1, info.driver_exit_code or 0)  # killed by a signal, or stopped: 1


def stop(client: JobSubmissionClient, job_id: str) -> bool:
    """Ask a job to finish its commits and stop; False where it was over already.

    Raises:
        ClusterError: the job is not known.
    """
    try:
        return bool(client.stop_job(job_id))
    except (RuntimeError, OSError) as problem:
        raise ClusterError(f"job {job_id} cannot be stopped: {_said(problem)}") from None


def wait_until_over(client: JobSubmissionClient, job_id: str) -> JobStatus:
    """Wait for a job's end.

    Raises:
        ClusterError: the job is not known, or the server has gone.
    """
    try:
        while not (status := client.get_job_status(job_id)).is_terminal():
            time.sleep(_POLL_SECONDS)
    except (RuntimeError, OSError) as problem:
        raise ClusterError(f"job {job_id} cannot be watched: {_said(problem)}") from None
    return status


def _said(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
