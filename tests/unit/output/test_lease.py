"""One driver at a time writes an output.

Renewals happen only if a test calls ``renew``: the renewing thread waits for an hour.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from salip_ray.errors import LeaseError, OutputError, StoreError
from salip_ray.output import clock, lease_acquire
from salip_ray.output import lease as leases
from salip_ray.output.layout import LEASE
from salip_ray.output.lease import RENEW_SECONDS, held, require_owner
from salip_ray.output.lease_holder import TERM_SECONDS
from salip_ray.output.store import Store, UnconditionalStoreError

HOUR = 3600.0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


@pytest.fixture
def clocks(monkeypatch):
    """Both clocks of the leases, which move only when a test says so."""
    return Clocks(monkeypatch)


class Clocks:
    def __init__(self, monkeypatch):
        self.wall, self.monotonic = datetime(2030, 1, 1, tzinfo=UTC), 0.0
        monkeypatch.setattr(clock, "now", lambda: self.wall)
        monkeypatch.setattr(clock, "monotonic", lambda: self.monotonic)

    def stop_process(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds

    def suspend_machine(self, seconds):
        self.wall += timedelta(seconds=seconds)


def content_of(store):
    return json.loads(store.read(LEASE))


def leave_lease(store, **changes):
    """Leave a lease in the output as another driver would."""
    with held(store, interval=HOUR):
        content = content_of(store)
    store.write(LEASE, json.dumps({**content, "owner": "other", **changes}).encode())


def take_over(store):
    store.write(LEASE, json.dumps({**content_of(store), "owner": "other"}).encode())


def test_lease_exists_only_while_it_is_held(store):
    with held(store, interval=HOUR):
        assert content_of(store)["pid"] == os.getpid()
    assert store.names() == []


def test_lease_that_cannot_be_deleted_is_written_as_expired(store, monkeypatch):
    def refuse(self, name):
        raise StoreError(f"{name} may not be deleted")

    monkeypatch.setattr(Store, "delete", refuse)
    with held(store, interval=HOUR):
        owner = content_of(store)["owner"]
    released = content_of(store)
    assert released["owner"] == owner
    store.write(LEASE, json.dumps({**released, "host": "node-7"}).encode())
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != owner


# ------------------------------------------------------------------------------ other drivers


def test_lease_of_another_host_is_refused_with_its_holder_and_expiry(store):
    leave_lease(store, host="node-7", pid=4711)
    with pytest.raises(LeaseError, match=r"node-7, process 4711.*expires in \d+ s"), held(store):
        pass
    assert content_of(store)["owner"] == "other"


def start_driver(store, *, term=TERM_SECONDS):
    """Start a process that holds a lease, renews it once per line of input, and prints the result.

    Its renewing thread does nothing, so that only this test decides when it renews.
    """
    code = (
        "import sys; from salip_ray.output.lease import held;"
        "from salip_ray.output.store import Store\n"
        "with held(Store(sys.argv[1]), term=float(sys.argv[2]), interval=3600) as lease:\n"
        "    print('held', flush=True)\n"
        "    for _ in sys.stdin:\n"
        "        lease.renew()\n"
        "        print('lost' if lease.lost.is_set() else 'renewed', flush=True)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, store.location, str(term)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout.readline() == "held\n"
    return driver


def renew(driver):
    driver.stdin.write("\n")
    driver.stdin.flush()
    return driver.stdout.readline().strip()


def test_living_process_of_this_host_is_refused_and_dead_one_is_not(store):
    driver = start_driver(store)
    try:
        with pytest.raises(LeaseError, match=str(driver.pid)), held(store):
            pass
    finally:
        driver.kill()
        driver.communicate()
    with held(store, interval=HOUR):
        assert content_of(store)["pid"] != driver.pid


def test_stopped_process_loses_its_lease_and_writes_nothing_when_continued(store):
    driver = start_driver(store, term=1.0)
    try:
        os.kill(driver.pid, signal.SIGSTOP)
        expires = datetime.fromisoformat(content_of(store)["expires"])
        while datetime.now(UTC) <= expires + timedelta(seconds=1.5):
            threading.Event().wait(0.1)
        with held(store, interval=HOUR) as lease:
            os.kill(driver.pid, signal.SIGCONT)
            assert renew(driver) == "lost"
            lease.require_owner()
        assert store.names() == []  # the second driver has finished and released its lease
        driver.communicate(timeout=60)  # the end of its input ends it
        assert driver.returncode == 0
        assert store.names() == []
    finally:
        driver.kill()
        driver.wait()


def test_expired_lease_is_taken_over(store):
    leave_lease(store, host="node-7", expires="2020-01-01T00:00:00+00:00")
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != "other"


def test_lease_expires_one_term_after_its_last_renewal_whatever_it_claims(store, clocks):
    leave_lease(store, host="node-7", expires="2999-01-01T00:00:00+00:00")
    with pytest.raises(LeaseError, match=r"expires in 90 s"), held(store):
        pass
    clocks.stop_process(TERM_SECONDS + 1)
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != "other"


def test_lease_renewed_in_the_future_is_refused_with_the_way_out(store):
    moment = "2999-01-01T00:00:00+00:00"
    leave_lease(store, host="node-7", renewed=moment, expires=moment)
    with (
        pytest.raises(LeaseError, match=r"a clock is wrong: if no driver is running, delete \S+"),
        held(store),
    ):
        pass


def test_earlier_lease_of_this_process_is_taken_over(store):
    leave_lease(store)
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != "other"


def test_second_lease_in_one_process_is_refused(store):
    with held(store, interval=HOUR):
        content = content_of(store)
        with pytest.raises(LeaseError, match=f"process {content['pid']}"), held(store):
            pass
        assert content_of(store) == content
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != content["owner"]


def test_processes_of_another_container_are_not_known_to_be_dead(store):
    """The host's name and boot may be this one's; its process numbers mean nothing here."""
    for pid in (4_194_999, os.getpid()):  # one that does not exist here, and this one
        leave_lease(store, pid=pid, pid_namespace="pid:[1]")
        with pytest.raises(LeaseError, match=f"process {pid}"), held(store):
            pass
        store.delete(LEASE)
    leave_lease(store, pid=4_194_999)
    with held(store, interval=HOUR):
        assert content_of(store)["owner"] != "other"


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"[]", b"{}", b'{"expires": 3}', b"\xff\xfe", b'{"expires": null}']
)
def test_malformed_lease_is_taken_over(store, content):
    store.write(LEASE, content)
    with held(store, interval=HOUR):
        assert content_of(store)["owner"]


@pytest.mark.parametrize(
    "changes",
    [{"pid": "many"}, {"pid": None, "host": None}, {"born": 3, "progress": 4}, {"owner": []}],
)
def test_lease_with_malformed_fields_is_refused_in_one_line(store, changes):
    leave_lease(store, **{"host": "node-7", **changes})
    with pytest.raises(LeaseError) as refused, held(store):
        pass
    assert "is being written by another driver" in str(refused.value)
    assert "\n" not in str(refused.value)


# -------------------------------------------------------------------------- conditional writes


class Rival(Store):
    """A store in which another driver writes its lease just before this one does."""

    def __init__(self, store, *, conditional):
        super().__init__(store.location)
        self.conditional = conditional

    def _race(self):
        now = datetime.now(UTC)
        content = {
            "owner": "other",
            "host": "node-7",
            "renewed": now.isoformat(),
            "expires": (now + timedelta(seconds=60)).isoformat(),
        }
        super().write(LEASE, json.dumps(content).encode())

    def create(self, name, data):
        if not self.conditional:
            raise UnconditionalStoreError("no conditional write")
        self._race()
        return super().create(name, data)

    def write(self, name, data):
        super().write(name, data)
        self._race()


@pytest.mark.parametrize("conditional", [True, False])
def test_driver_that_loses_the_race_is_refused_and_keeps_nothing(store, conditional):
    rival = Rival(store, conditional=conditional)
    with pytest.raises(LeaseError, match="node-7"), held(rival):
        pass
    assert content_of(store)["owner"] == "other"
    store.delete(LEASE)
    with held(store, interval=HOUR) as lease:  # the refused lease does not count as held
        lease.require_owner()


def test_conditional_write_needs_no_wait(store, monkeypatch):
    monkeypatch.setattr(lease_acquire.time, "sleep", lambda _: pytest.fail("waited"))
    with held(store, interval=HOUR) as lease:
        lease.require_owner()


def test_store_that_ignores_conditions_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(lease_acquire.time, "sleep", waits.append)
    fs = fsspec.filesystem("memory")
    pipe = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda path, data, **_: pipe(path, data))
    try:
        with held(Store("memory://careless"), interval=HOUR) as lease:
            lease.require_owner()
    finally:
        fs.store.clear()
    assert waits == [1.0]


def test_of_two_drivers_that_start_at_once_one_is_refused(store):
    barrier, release, outcomes = threading.Barrier(2), threading.Event(), []

    def start():
        barrier.wait(60)
        try:
            with held(store, interval=HOUR):
                outcomes.append("held")
                release.wait(60)
        except LeaseError:
            outcomes.append("refused")
            release.set()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


# ------------------------------------------------------------------------- renewing and losing


def test_renewal_writes_the_progress(store, clocks):
    with held(store, interval=HOUR) as lease:
        before = content_of(store)
        lease.progress = lambda: {"rows": {"refine": 3}}
        clocks.stop_process(20)
        lease.renew()
        after = content_of(store)
    assert after["progress"] == {"rows": {"refine": 3}}
    assert after["owner"] == before["owner"]
    assert after["expires"] > before["expires"]


def test_thread_renews_the_lease(store):
    renewed = threading.Event()
    with held(store, interval=0.01) as lease:
        lease.progress = lambda: renewed.set() or {}
        assert renewed.wait(60)
    assert RENEW_SECONDS < TERM_SECONDS / 4


def test_failing_progress_does_not_end_the_lease(store):
    with held(store, interval=HOUR) as lease:
        lease.progress = lambda: 1 / 0
        lease.renew()
        lease.require_owner()


def test_driver_that_was_replaced_is_notified_and_leaves_the_lease_alone(store):
    calls = []
    with held(store, interval=HOUR) as lease:
        lease.on_lost = lambda: calls.append("lost")
        take_over(store)
        lease.require()  # not noticed yet
        lease.renew()
        assert calls == ["lost"]
        with pytest.raises(LeaseError, match="taken over by another driver"):
            lease.require()
        lease.renew()
        assert calls == ["lost"]
    assert content_of(store)["owner"] == "other"


@pytest.mark.parametrize("content", [None, b"{}", b"no json"])
def test_absent_or_damaged_lease_is_lost(store, content):
    with held(store, interval=HOUR) as lease:
        store.delete(LEASE)
        if content is not None:
            store.write(LEASE, content)
        with pytest.raises(LeaseError, match=r"lease\.json is missing or damaged"):
            lease.require_owner()
        assert lease.lost.is_set()
        lease.renew()
    assert store.read(LEASE) == content


@pytest.mark.parametrize("pause", ["stop_process", "suspend_machine"])
def test_lease_that_was_not_renewed_within_its_term_is_lost(store, clocks, pause):
    with held(store, interval=HOUR) as lease:
        getattr(clocks, pause)(TERM_SECONDS - 1)
        lease.require()
        getattr(clocks, pause)(2)
        with pytest.raises(LeaseError, match=r"not renewed for 91 s, but expires after 90 s"):
            lease.require()
        before = store.read(LEASE)
        lease.renew()
        assert store.read(LEASE) == before
    assert store.read(LEASE) == before


def test_renewal_keeps_the_lease_past_its_first_term(store, clocks):
    with held(store, interval=HOUR) as lease:
        for _ in range(4):
            clocks.stop_process(TERM_SECONDS / 2)
            lease.renew()
            lease.require_owner()


def test_renewal_that_was_paused_after_its_check_does_not_write(store, clocks, monkeypatch):
    with held(store, interval=HOUR) as lease:
        before = content_of(store)
        check = leases.require_owner

        def check_then_pause(*arguments):
            check(*arguments)
            clocks.stop_process(TERM_SECONDS - 1)

        with monkeypatch.context() as patch:
            patch.setattr(leases, "require_owner", check_then_pause)
            lease.renew()
        assert content_of(store) == before


def test_on_lost_is_called_at_once_if_the_lease_is_lost_already(store):
    calls = []
    with held(store, interval=HOUR) as lease:
        take_over(store)
        lease.renew()
        lease.on_lost = lambda: calls.append("lost")
        assert calls == ["lost"]
        lease.renew()
    assert calls == ["lost"]


def test_failing_notification_is_repeated_at_the_next_renewal(store):
    calls = []

    def notify():
        calls.append("lost")
        if len(calls) < 3:
            raise RuntimeError("out of reach")

    with held(store, interval=HOUR) as lease:
        lease.on_lost = notify
        take_over(store)
        for _ in range(5):
            lease.renew()
    assert len(calls) == 3


def test_store_that_fails_for_a_while_does_not_end_the_lease(store, clocks, monkeypatch):
    def fail(*_):
        raise OutputError("503")

    with held(store, interval=HOUR) as lease:
        with monkeypatch.context() as broken:
            broken.setattr(Store, "write", fail)
            clocks.stop_process(30)
            with pytest.raises(OutputError):
                lease.renew()
        lease.require()
        before = content_of(store)["renewed"]
        lease.renew()
        assert content_of(store)["renewed"] > before


# ------------------------------------------------------------------------------ other processes


def test_owner_is_checked_from_another_process(store):
    with held(store, interval=HOUR) as lease:
        require_owner(store, lease.owner)
        with pytest.raises(LeaseError, match="taken over by another driver"):
            require_owner(store, "someone else")
    with pytest.raises(LeaseError, match="missing"):
        require_owner(store, lease.owner)


def test_owner_whose_lease_expired_long_ago_may_not_commit(store, clocks):
    with held(store, interval=HOUR) as lease:
        clocks.stop_process(TERM_SECONDS + 80)  # the clocks of two nodes may differ
        require_owner(store, lease.owner)
        clocks.stop_process(20)
        with pytest.raises(LeaseError, match="was renewed last at"):
            require_owner(store, lease.owner)
