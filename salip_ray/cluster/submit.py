"""Submit a labelling job to the job server of a Ray cluster.

The job gets one file: the whole configuration, checked here first. It holds the sentences of the
task and may hold storage options with credentials. So it is a file of the job, which the dashboard
does not show, and not on the command line, which the dashboard shows. The cluster uses the package
that it has installed, unless this one is sent along.

One output has one writer: a second submission of the same job joins the running job.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from salip_ray.config import Config
from salip_ray.config.shipped import shipped_configs
from salip_ray.errors import ClusterError
from salip_ray.models.registry import code_of
from salip_ray.sources.locations import normalise, public_uri
from salip_ray.wording import one_line

_JOB_FILE = "job.yaml"
_OUTPUT_KEY, _FINGERPRINT_KEY = "salip_output", "salip_job"
_POLL_SECONDS = 1.0
#: Time for a stopped job to finish its commits; by default Ray kills it after three seconds.
_STOP_SECONDS = 150


@dataclass(frozen=True)
class Submitted:
    """A job on the cluster; ``joined`` if it was running already."""

    job_id: str
    joined: bool = False


def connect(address: str) -> JobSubmissionClient:
    """Connect to the job server at ``address``, for example ``http://head:8265``.

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
        raise ClusterError(f"no job server answers at {address}: {_describe(problem)}") from None


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
            f"the job server does not report its version: {_describe(problem)}"
        ) from None


def submit(
    client: JobSubmissionClient,
    input: str,  # noqa: A002  (the word a person would use)
    output: str,
    config: Config,
    *,
    references: str | None = None,
    prompts: str | None = None,
    candidates: str | None = None,
    manifest: str | None = None,
    quiet: bool = False,
    extend: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    python: str = "python",
    ship: bool = False,
) -> Submitted:
    """Start ``salip-ray label`` on the cluster, or join the same job if it is running.

    Args:
        client: from :func:`connect`.
        input: as for :func:`salip_ray.label`; a local path must be the same on every node.
        output: as for :func:`salip_ray.label`.
        config: from :func:`salip_ray.load_config`.
        references: reference masks for the mode ``gt_sam``.
        prompts: boxes of the images, as for :func:`salip_ray.label`.
        candidates: masks or boxes made elsewhere, as for :func:`salip_ray.label`.
        manifest: as for :func:`salip_ray.label`, and so are the next five.
        quiet: show no progress.
        extend: label images that the input has gained.
        include: patterns, one of which a file must match.
        exclude: patterns of files that are left out.
        limit: label at most so many files.
        python: the interpreter, by its name or path on the cluster.
        ship: send this installation of the package and of the packages that its models come from,
            instead of using those of the cluster.

    Raises:
        ClusterError: the server refuses, another job is writing to the output, or a location holds
            a signature or a password.
    """
    command = [python, "-m", "salip_ray", "label", shown("INPUT", input), shown("OUTPUT", output)]
    command += ["--config", _JOB_FILE]
    if references is not None:
        command += ["--reference", shown("--reference", references)]
    if prompts is not None:
        command += ["--prompts", shown("--prompts", prompts)]
    if candidates is not None:
        command += ["--candidates", shown("--candidates", candidates)]
    if manifest is not None:
        command += ["--manifest", shown("--manifest", manifest)]
    command += [f"--include={pattern}" for pattern in include]
    command += [f"--exclude={pattern}" for pattern in exclude]
    command += [] if limit is None else ["--limit", str(limit)]
    command += ["--extend"] * extend + ["--quiet"] * quiet
    files = {_JOB_FILE: config_file(config)}
    code = code_of(config) if ship else ()
    return submit_command(client, command, output, files=files, ship=ship, code=code)


def submit_command(
    client: JobSubmissionClient,
    command: Sequence[str],
    output: str,
    *,
    files: Mapping[str, str],
    ship: bool = False,
    code: Sequence[Path] = (),
) -> Submitted:
    """Start a command on the cluster, or join the same command if it is running.

    Args:
        client: from :func:`connect`.
        command: its words; the dashboard shows them.
        output: what it writes; one output has one writer.
        files: text files of its working folder, which the dashboard does not show.
        ship: send this installation of the package, instead of using that of the cluster.
        code: folders or files of further packages to send with it.

    Raises:
        ClusterError: the server refuses, or another job is writing to the output.
    """
    contents = "\n".join(files.values())
    fingerprint = hashlib.sha256(f"{command}\n{contents}".encode()).hexdigest()
    where = public_uri(output)
    try:
        if running := _writing_to(client, where):
            if (running.metadata or {}).get(_FINGERPRINT_KEY) != fingerprint:
                raise ClusterError(
                    f"job {running.submission_id} is writing to {where} with another command or "
                    f"configuration: stop it first, or give another output"
                )
            return Submitted(str(running.submission_id), joined=True)
        with (
            tempfile.TemporaryDirectory(prefix="salip-ray-") as folder,
            tempfile.TemporaryDirectory(prefix="salip-ray-") as copies,
        ):
            for name, text in files.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            environment: dict[str, Any] = {
                "working_dir": folder,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)},
            }
            if ship:
                package = package_to_ship(Path(copies))
                environment["py_modules"] = [str(path) for path in (package, *code)]
            job_id = client.submit_job(
                entrypoint=shlex.join(command),
                runtime_env=environment,
                metadata={_OUTPUT_KEY: where, _FINGERPRINT_KEY: fingerprint},
            )
    except (RuntimeError, OSError) as problem:
        if isinstance(problem, ClusterError):
            raise
        raise ClusterError(f"the job server refused the job: {_describe(problem)}") from None
    return Submitted(job_id)


def package_to_ship(folder: Path) -> Path:
    """Return the folder of this package with its shipped tasks and presets.

    In a checkout they are not in the package, so a copy is made in ``folder``.
    """
    package, configs = Path(__file__).resolve().parents[1], shipped_configs()
    if configs.is_relative_to(package):
        return package
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(configs, copy / "_configs")
    return copy


def shown(name: str, location: str) -> str:
    """Return a location for the command line, which the dashboard shows.

    Raises:
        ClusterError: it holds a signature or a password.
    """
    if public_uri(location) != normalise(location):
        raise ClusterError(
            f"{name} {public_uri(location)} was given with a signature or a password, which the "
            "dashboard would show: use storage options, or a manifest file of signed addresses"
        )
    return normalise(location)


def config_file(config: Config) -> str:
    """Return the configuration as a complete task file, to which no preset adds anything."""
    data = config.model_dump(mode="json")
    # The cluster plans the pools: settings that were left open must stay open.
    data["pools"] = config.pools.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _writing_to(client: JobSubmissionClient, output: str) -> JobDetails | None:
    for job in client.list_jobs():
        ours = (job.metadata or {}).get(_OUTPUT_KEY) == output
        if ours and job.submission_id and not job.status.is_terminal():
            return job
    return None


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], object]) -> int:
    """Write the log of a job until the job has ended.

    Args:
        client: from :func:`connect`.
        job_id: from :func:`submit`.
        write: called with successive parts of the log.

    Returns:
        The exit code of the job: 0 if it succeeded; that of the driver, or 1, if it failed or was
        stopped.

    Raises:
        ClusterError: the server does not know the job, or has not answered for a minute.
    """
    written = 0
    lost_since: float | None = None

    async def tail() -> None:
        nonlocal written
        skip = written  # a new connection begins at the log's beginning
        async for text in client.tail_job_logs(job_id):
            fresh, skip = text[skip:], max(0, skip - len(text))
            written += len(fresh)
            if fresh:
                write(fresh)

    while True:
        try:
            asyncio.run(tail())
            info = client.get_job_info(job_id)
            lost_since = None
            if info.status.is_terminal():
                write(client.get_job_logs(job_id)[written:])
                break
        except Exception as problem:  # noqa: BLE001  (a connection fails in many ways)
            if "does not exist" in str(problem):
                raise ClusterError(f"there is no job {job_id}: {_describe(problem)}") from None
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > 60:
                raise ClusterError(
                    f"the job server has not answered for a minute ({_describe(problem)}). The job "
                    "may still be running: run the same command to join it again"
                ) from None
        time.sleep(_POLL_SECONDS)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    return max(1, info.driver_exit_code or 0)  # killed by a signal, or stopped: 1


def stop(client: JobSubmissionClient, job_id: str) -> bool:
    """Ask a job to finish its commits and stop; return False if it had ended already.

    Raises:
        ClusterError: the server does not know the job.
    """
    try:
        return bool(client.stop_job(job_id))
    except (RuntimeError, OSError) as problem:
        raise ClusterError(f"job {job_id} cannot be stopped: {_describe(problem)}") from None


def wait_until_over(client: JobSubmissionClient, job_id: str) -> JobStatus:
    """Wait for the end of a job.

    Raises:
        ClusterError: the server does not know the job, or does not answer.
    """
    try:
        while not (status := client.get_job_status(job_id)).is_terminal():
            time.sleep(_POLL_SECONDS)
    except (RuntimeError, OSError) as problem:
        raise ClusterError(f"job {job_id} cannot be watched: {_describe(problem)}") from None
    return status


def _describe(problem: BaseException) -> str:
    text = one_line(problem)
    return text if len(text) <= 300 else f"{text[:300]}..."
