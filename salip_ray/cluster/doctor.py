"""Check what a job will need, before a cluster is paid for.

Every check is a function that returns its result, or raises :class:`Advice` with what to do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from salip_ray.cluster.clip_weights import names_a_file, state_of_named_weights
from salip_ray.cluster.machine_checks import (
    Advice,
    device,
    disk,
    open_files,
    shared_memory,
    versions,
)
from salip_ray.config import Config
from salip_ray.errors import SalipError
from salip_ray.models.identity import uses_sam
from salip_ray.models.registry import needed
from salip_ray.models.task_check import require_taught_classes
from salip_ray.models.weights import cached, is_folder
from salip_ray.output.store import Store
from salip_ray.sources.listing import first_image
from salip_ray.sources.locations import filesystem, is_remote, join, public_uri
from salip_ray.sources.stores import describe_error, underlying_error
from salip_ray.wording import counted

_PROBE = ".doctor.tmp"  # a job ignores this name if it cannot be deleted
_HEAD = 16  # bytes read from an image
_SKEW_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """The result of one check; the verdict is ``ok``, ``note``, or ``fix`` (a job would fail)."""

    check: str
    verdict: str
    message: str


def examine(
    config: Config,
    *,
    input: str | None = None,  # noqa: A002  (the word a person would use)
    output: str | None = None,
    address: str | None = None,
) -> Iterator[Finding]:
    """Run the checks, and yield the finding of each.

    Args:
        config: its weights and storage options are tried.
        input: location of the images.
        output: location of the labels; a small object is written, read and deleted.
        address: the job server of a cluster.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("task", lambda: task(config)),
        ("versions", versions),
        ("device", lambda: device(config)),
        ("memory", shared_memory),
        ("disk", disk),
        ("open files", open_files),
        ("models", lambda: models(config)),
        *((f"weights: {role}", check) for role, check in _weight_checks(config)),
    ]
    if input is not None:
        checks.append(("input", lambda: readable(input, config)))
    if output is not None:
        checks.append(("output", lambda: writable(output, config)))
    checks.append(("ray", lambda: ray_cluster(address)))
    for name, check in checks:
        try:
            yield Finding(name, "ok", check())
        except Advice as advice:
            yield Finding(name, "fix" if advice.fatal else "note", str(advice))
        except SalipError as error:
            yield Finding(name, "fix", str(error))


def task(config: Config) -> str:
    """Check that the CLIP was taught the classes of the task."""
    require_taught_classes(config)
    return f"{config.task.name}: {', '.join(spec.label for spec in config.task.classes)}"


def models(config: Config) -> str:
    """Import the code of the models of other packages, and return the family of each stage."""
    families = []
    for role, model in needed(config).items():
        code = ""
        if not model.built_in:
            model.factory()
            about = model.identity()
            version = about.get("version") or f"sha256 {about['sha256'][:12]}"
            code = f" ({about.get('package', model.target)} {version})"
        families.append(f"{role} {model.name}{code}")
    return ", ".join(families)


def _weight_checks(config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield a check of the weights for each model that the job loads."""
    try:
        families, with_sam = needed(config), uses_sam(config)
    except SalipError:
        return  # the check of the models reports it
    sams = [("sam", config.sam if with_sam else None), ("refine", config.refine.sam)]
    for role, sam in sams:
        if sam is not None:
            file = None if sam.model == "bundled" else sam.checkpoint
            yield role, partial(weights, file, config)
    for role, family in families.items():
        if family.name == "clip":
            yield "clip", partial(clip_weights, config)
        for name, weights_file in getattr(config, role).weights.items():
            yield f"{role}.{name}", partial(weights, weights_file.uri, config)


def clip_weights(config: Config) -> str:
    """Check that the CLIP's weights are bundled, on this machine, or can be fetched."""
    if config.clip.model == "bundled" or names_a_file(config.clip):
        file = None if config.clip.model == "bundled" else config.clip.pretrained
        return weights(file, config)
    available, description = state_of_named_weights(config.clip)
    if not available:
        raise Advice(description)
    return description


def weights(uri: str | None, config: Config) -> str:
    """Check that a weights file exists, without fetching it; None stands for bundled weights."""
    if uri is None:
        return "bundled"
    if uri.startswith("hf-hub:"):
        return f"{uri}, from the cache of Hugging Face or its hub"
    if is_folder(uri):
        return f"folder {uri}"
    if not is_remote(uri):
        path = Path(uri.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise Advice(f"{uri} does not exist")
        return f"{uri}, {path.stat().st_size / 1e6:,.0f} MB"
    if (fetched := cached(uri)) is not None:
        return f"{public_uri(uri)}, fetched already: {fetched}"
    fs, location = filesystem(uri, config.storage.weights)
    try:
        size = fs.info(location).get("size") or 0
    except Exception as problem:  # noqa: BLE001  (each store has its own)
        raise Advice(f"{public_uri(uri)} cannot be read: {_describe(problem, uri)}") from None
    return f"{public_uri(uri)}, {size / 1e6:,.0f} MB to fetch, once per node"


def readable(location: str, config: Config) -> str:
    """Return how many bytes of the first image of the input could be read."""
    options = config.storage.input
    asked = location
    try:
        asked = first_image(location, options)
        fs, path = filesystem(asked, options)
        head = fs.cat_file(path, start=0, end=_HEAD)
    except SalipError:
        raise
    except Exception as problem:  # noqa: BLE001
        raise Advice(
            f"{public_uri(asked)} cannot be read: {_describe(problem, asked)}; check the "
            "credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID), the region, and the permissions "
            "s3:ListBucket and s3:GetObject"
        ) from None
    return f"read {len(head)} bytes of {public_uri(asked)}"


def writable(location: str, config: Config) -> str:
    """Write an object, read it back, compare the clocks, and delete it if that is allowed."""
    store = Store(location, config.storage.output)
    data = secrets.token_bytes(1024)
    began = time.time()
    store.write(_PROBE, data)
    if store.read(_PROBE) != data:
        raise Advice(f"{store} gives back other bytes than were written")
    fs, root = filesystem(store.location, config.storage.output)
    path = join(root, _PROBE)
    skew = 0.0
    with contextlib.suppress(NotImplementedError, AttributeError, KeyError):
        written = fs.modified(path).timestamp()
        skew = max(began - written, written - time.time(), 0.0)
    deleted = "deleted"
    try:
        fs.rm_file(path)
    except Exception:  # noqa: BLE001  (a job needs no permission to delete)
        deleted = f"left behind as {_PROBE}, for it may not be deleted"
    if skew > _SKEW_SECONDS:
        raise Advice(
            f"this machine's clock and the store's are {skew:.0f} s apart; S3 refuses requests "
            "from 15 minutes on: set the clock (timedatectl set-ntp true)",
            fatal=skew > 600,
        )
    return f"wrote and read 1 KiB in {time.time() - began:.2f} s, {deleted}; the clocks agree"


def ray_cluster(address: str | None) -> str:
    """Return the version or size of the cluster, if its job server or its Ray answers."""
    if address is not None:
        from salip_ray.cluster.submit import connect, ray_version_of

        theirs = ray_version_of(connect(address))
        if theirs != version("ray"):
            raise Advice(
                f"{address} runs Ray {theirs}, and this machine has {version('ray')}: install the "
                "same version",
                fatal=False,
            )
        return f"the job server at {address} answers (Ray {theirs})"
    if not os.environ.get("RAY_ADDRESS"):
        return "none named (--address, RAY_ADDRESS): label starts one on this machine"
    from salip_ray.cluster.session import ray_session

    with ray_session(lambda _: 0.0) as machine:
        return (
            f"joined {os.environ['RAY_ADDRESS']}: {counted(len(machine.nodes), 'node')}, "
            f"{machine.cpus:g} CPUs, {machine.gpus:g} GPUs"
        )


def _describe(problem: Exception, address: str = "") -> str:
    text = describe_error(underlying_error(problem), address)
    return text if len(text) <= 200 else f"{text[:200]}..."
