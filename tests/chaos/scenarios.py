"""The disturbances: each labels until it has happened often enough, and compares every output."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.chaos.faults import IMAGE_KINDS, FaultyProxy
from tests.chaos.harness import PAGES, PLANTED, Event, Job, SmallCluster, Tally, draw_planted
from tests.chaos.hooks import DEATHS
from tests.chaos.outputs import Damage, compare
from tests.s3_server import S3Server

OutOfTime = Callable[[], bool]


@dataclass
class World:
    """What all disturbances use."""

    cluster: SmallCluster
    images: Path
    work: Path
    rng: random.Random
    report: Callable[[str], None] = print
    out_of_time: OutOfTime = lambda: False
    _numbers = itertools.count()

    def job(self, name: str, *, hook: str = "slow", proposers: int = 1, apart: bool = False) -> Job:
        """Return a job to a new local output, with separate actors per stage if ``apart``."""
        folder = self.new_folder(name)
        output = folder / "labels"
        arguments = (str(self.images), str(output), output, folder)
        return Job(self.cluster.address, *arguments, hook, proposers=proposers, apart=apart)

    def new_folder(self, name: str) -> Path:
        folder = self.work / f"{name}-{next(self._numbers)}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def undisturbed(self) -> Path:
        """Return the output of an undisturbed run, which is made once."""
        output = self.work / "undisturbed"
        if not (output / "summary.json").exists():
            job = self.job("calm", hook="")
            job.start()
            if not job.wait():
                log = (job.work / "driver.log").read_text()[-2000:]
                raise RuntimeError(f"the undisturbed run failed:\n{log}")
            shutil.rmtree(output, ignore_errors=True)
            shutil.copytree(job.folder, output)
        return output

    def end(self, job: Job, undisturbed: Path, tally: Tally) -> None:
        """Wait for the end of a job, and compare its output."""
        attempts = 0
        while not job.wait():
            tally.damage += Damage(crashes=1)
            self.report(f"CRASH: {(job.work / 'driver.log').read_text()[-1500:]}")
            attempts += 1
            if attempts == 3:
                break
            job.start()
        damage = compare(job.collect(), undisturbed)
        tally.damage += damage
        if damage.total:
            self.report(f"DAMAGE in {job.folder}: {damage}")
        else:
            shutil.rmtree(job.work)


def kill_drivers(world: World, kills: int, tally: Tally, *, in_commit: int) -> None:
    """SIGKILL the driver, ``in_commit`` times between the files of a commit, else at random."""
    calm = world.undisturbed()
    shards = len(list(calm.glob("shards/*.parquet")))
    done = cut = 0
    job, event = world.job("driver"), None
    job.start()
    while done < kills and not world.out_of_time():
        again, before = time.monotonic(), job.committed
        if event is not None and job.until_next_commit(before):
            event.recovery_seconds = round(time.monotonic() - again, 1)
        if cut < in_commit:
            # Not always the first commit after a start.
            goal = job.committed + world.rng.randrange(2)
            hit = job.until_commit_under_way(goal)
        else:
            hit = job.stays_for(world.rng.uniform(0.0, 40.0))
        if hit:
            phase, committed = job.phase, job.committed
            job.kill()
            done, cut = done + 1, cut + (phase == "commit")
            event = Event("driver", phase, committed, shards)
            tally.events.append(event)
            tally.count("driver_kills")
            world.report(f"driver killed in {phase}, {committed} of {shards} shards before")
            job.start()
        else:
            world.end(job, calm, tally)
            job, event = world.job("driver"), None
            job.start()
    world.end(job, calm, tally)


def kill_workers(world: World, kills: int, tally: Tally) -> None:
    """SIGKILL workers of every kind in sequence, each soon after a commit."""
    calm = world.undisturbed()
    shards = len(list(calm.glob("shards/*.parquet")))
    done = jobs = 0
    while done < kills and not world.out_of_time():
        job = world.job("worker", proposers=2, apart=jobs % 2 == 1)
        jobs += 1
        job.start()
        while done < kills and job.until_next_commit(job.committed):
            time.sleep(world.rng.uniform(0.0, 0.6))
            phase, committed = job.phase, job.committed
            name = world.cluster.kill_worker(world.rng) if job.running else None
            if name is None:
                break
            done += 1
            event = Event(f"worker {name}", phase, committed, shards)
            began = time.monotonic()
            if job.until_next_commit(job.committed):
                event.recovery_seconds = round(time.monotonic() - began, 1)
            tally.events.append(event)
            tally.count("worker_kills")
            world.report(f"worker {name} killed in {phase}, {committed} of {shards} shards before")
        world.end(job, calm, tally)


def plant_files(world: World, deaths: int, tally: Tally) -> None:
    """Label files that kill the worker that fetches, opens or labels them."""
    images = draw_planted(world.work / "planted")
    calm = world.job("planted-calm", hook="")
    calm.input = str(images)
    calm.start()
    if not calm.wait():
        raise RuntimeError((calm.work / "driver.log").read_text()[-2000:])
    wanted = _rows(calm.folder)
    done = 0
    while done < deaths and not world.out_of_time():
        job = world.job("planted", hook="dying", apart=True)
        job.input = str(images)
        job.start()
        if not job.wait():
            tally.damage += Damage(crashes=1)
            world.report(f"CRASH: {(job.work / 'driver.log').read_text()[-1500:]}")
            return
        died = Counter((job.work / DEATHS).read_text().split())
        done += died.total()
        tally.count("planted_deaths", died.total())
        rows = _rows(job.folder)
        planted = {key for key, row in wanted.items() if Path(row["uri"]).name in PLANTED}
        assert len(planted) == len(PLANTED) - 1 + PAGES
        errors = {key for key, row in rows.items() if row["status"] == "error"} & planted
        others = [key for key in wanted.keys() - planted if str(rows.get(key)) != str(wanted[key])]
        costly = [name for name, most in PLANTED.items() if died[name] not in range(1, most + 1)]
        damage = Damage(rows_lost=len(planted - errors), bytes_different=len(others))
        tally.damage += damage + Damage(crashes=len(costly))
        world.report(f"workers died on planted files: {dict(died)}")
        if damage.total or costly:
            world.report(f"DAMAGE in {job.folder}: {damage}; deaths of {costly}")


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in pq.read_table(output / "shards").to_pylist()}


def lose_nodes(world: World, losses: int, tally: Tally) -> None:
    """Kill a node with all its processes, and start another one."""
    calm = world.undisturbed()
    shards = len(list(calm.glob("shards/*.parquet")))
    done = 0
    while done < losses and not world.out_of_time():
        job = world.job("node", proposers=2)
        job.start()
        while done < losses and job.until_next_commit(job.committed):
            phase, committed, began = job.phase, job.committed, time.monotonic()
            if not job.running:
                break
            world.cluster.lose_node(world.rng)
            world.cluster.add_node()
            done += 1
            event = Event("node", phase, committed, shards)
            if job.until_next_commit(committed):
                event.recovery_seconds = round(time.monotonic() - began, 1)
            tally.events.append(event)
            tally.count("node_losses")
            world.report(f"node lost in {phase}, {committed} of {shards} shards before")
        world.end(job, calm, tally)


def fail_store(world: World, faults: int, tally: Tally, *, share: float = 0.1) -> None:
    """Label from bucket to bucket while the store fails; kill its server during a write, too.

    Ends if there were enough faults, and some of every kind.
    """
    served = world.work / "served"
    shutil.rmtree(served, ignore_errors=True)
    served.mkdir()
    server = S3Server(served, world.work / "rclone.log")
    server.upload(world.images, "bucket/in")
    proxy = FaultyProxy(server, seed=world.rng.randrange(1 << 30))
    try:
        calm = _bucket_job(world, proxy, "calm")
        calm.start()
        if not calm.wait():
            log = (calm.work / "driver.log").read_text()[-2000:]
            raise RuntimeError(f"the undisturbed run on S3 failed:\n{log}")
        undisturbed = calm.collect()
        proxy.share = share
        number = 0
        every = {*IMAGE_KINDS, "server killed"}
        while not (proxy.injected.total() >= faults and every <= proxy.injected.keys()):
            if world.out_of_time():
                break
            job = _bucket_job(world, proxy, f"faults-{number}")
            number += 1
            injected = proxy.injected.total()
            proxy.kill_server_in_next_write()
            job.start()
            world.end(job, undisturbed, tally)
            more = proxy.injected.total() - injected
            tally.count("store_faults", more)
            world.report(f"{more} faults of the store: {dict(proxy.injected)}")
    finally:
        proxy.close()
        server.kill()


def _bucket_job(world: World, proxy: FaultyProxy, name: str) -> Job:
    work = world.new_folder(f"s3-{name}")
    return Job(
        world.cluster.address,
        "s3://bucket/in",
        f"s3://bucket/{name}",
        work / "labels",
        work,
        storage={"input": proxy.options, "output": proxy.options},
        server=proxy.server,
    )
