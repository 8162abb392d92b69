"""Attacks on an output: a driver that was paused and comes back, and files that are altered."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from salip_ray.output import clock
from salip_ray.output.layout import LEASE
from salip_ray.output.lease_holder import LeaseHolder
from salip_ray.output.verify import verify
from tests.chaos.harness import Event, Tally
from tests.chaos.outputs import Damage, alter, compare, snapshot
from tests.chaos.scenarios import World


def pause_drivers(world: World, pauses: int, tally: Tally) -> None:
    """SIGSTOP a driver until another one has finished its job, then let it continue."""
    calm = world.undisturbed()
    shards = len(list(calm.glob("shards/*.parquet")))
    done = 0
    while done < pauses and not world.out_of_time():
        job = world.job("pause")
        job.start()
        goal = 1 + world.rng.randrange(shards // 2)
        if not job.until(lambda job=job, goal=goal: job.committed >= goal):
            world.end(job, calm, tally)
            continue
        phase, committed, began = job.phase, job.committed, time.monotonic()
        job.pause()
        done += 1
        tally.count("driver_pauses")
        event = Event("pause", phase, committed, shards)
        tally.events.append(event)
        other = replace(job, work=world.new_folder("takeover"), process=None)
        _wait_for_expiry(job.folder)
        committed = job.committed  # its workers may have finished a shard
        other.start()
        if other.until_next_commit(committed):
            event.recovery_seconds = round(time.monotonic() - began, 1)
        if not other.wait():
            tally.damage += Damage(crashes=1)
            world.report(f"CRASH: {(other.work / 'driver.log').read_text()[-1500:]}")
        before = snapshot(job.folder)
        job.unpause()
        claims_success = job.wait()
        after = snapshot(job.folder)
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        damage = compare(job.folder, calm)
        damage += Damage(bytes_different=len(changed), crashes=int(claims_success))
        tally.damage += damage
        world.report(f"driver paused in {phase}, {committed} of {shards} shards before")
        if damage.total:
            log = (job.work / "driver.log").read_text()[-1500:]
            world.report(f"DAMAGE in {job.folder}: {damage}, {changed} after the pause: {log}")
        else:
            shutil.rmtree(job.work)
        shutil.rmtree(other.work)


def _wait_for_expiry(output: Path) -> None:
    """Wait until the lease of an output has expired, as a second driver has to."""
    holder = LeaseHolder.parse((output / LEASE).read_bytes())
    assert holder is not None
    while (left := holder.seconds_left(clock.now())) > 0:
        time.sleep(left)


def alter_files(world: World, files: int, tally: Tally) -> None:
    """Alter files of a finished output one at a time, and verify after each."""
    output = world.new_folder("altered") / "labels"
    shutil.copytree(world.undisturbed(), output)
    digest = verify(str(output)).digest
    assert digest is not None
    for _ in range(files):
        if world.out_of_time():
            break
        if problem := alter(output, digest, world.rng):
            tally.damage += Damage(unnoticed=1)
            world.report(f"UNNOTICED: {problem}")
        tally.count("altered_files")
    world.report(f"{tally.counts.get('altered_files', 0)} altered files")
    shutil.rmtree(output.parent)
