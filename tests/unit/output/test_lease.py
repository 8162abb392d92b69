"""One driver for an output at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from salip_ray.errors import LeaseError, OutputError
from salip_ray.output import lease as leases
from salip_ray.output.lease import held
from salip_ray.output.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def stored(store):
    return json.loads(store.read("lease.json"))


def as_if(store, **changes):
    """Leave a lease behind as another driver would."""
    with held(store):
        data = stored(store)
    store.write("lease.json", json.dumps({**data, "owner": "other", **changes}).encode())


def test_a_lease_is_there_while_held_and_gone_after(store):
    with held(store):
        assert stored(store)["pid"]
    assert store.names() == []


def test_where_deleting_is_refused_a_lease_ends_all_the_same(store, monkeypatch):
    def refused(self, name):
        raise OutputError(f"{name} may not be deleted")

    monkeypatch.setattr(Store, "delete", refused)
    with held(store):
        first = stored(store)
    left = stored(store)
    assert left["owner"] == first["owner"]
    store.write(
        "lease.json", json.dumps({**left, "host": "node-7"}).encode()
    )  # seen from elsewhere
    with held(store):
        assert stored(store)["owner"] != first["owner"]


def test_another_hosts_lease_is_refused_with_whose_it_is_and_when_it_runs_out(store):
    as_if(store, host="node-7", pid=4711)
    with pytest.raises(LeaseError, match=r"node-7, process 4711.*runs out in \d+ s"), held(store):
        pass
    assert stored(store)["owner"] == "other"


def test_a_living_process_of_this_host_is_refused_and_a_dead_one_is_not(store):
    code = (
        "import sys, time; from salip_ray.output.lease import _acquire, TERM_SECONDS;"
        "from salip_ray.output.store import Store;"
        "_acquire(Store(sys.argv[1]), TERM_SECONDS); print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, store.location], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LeaseError, match=str(other.pid)), held(store):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(store):
        assert stored(store)["pid"] != other.pid


def test_a_lease_that_ran_out_is_taken_over(store):
    as_if(store, host="node-7", expires="2020-01-01T00:00:00+00:00")
    with held(store):
        assert stored(store)["owner"] != "other"


def test_this_very_process_may_begin_again(store):
    as_if(store)
    with held(store):
        assert stored(store)["owner"] != "other"


def test_another_thread_of_this_process_may_not_take_over(store):
    with held(store):
        first = stored(store)
        with pytest.raises(LeaseError, match=f"process {first['pid']}"), held(store):
            pass
        assert stored(store) == first
    with held(store):
        assert stored(store)["owner"] != first["owner"]


def test_a_refused_lease_is_not_taken_for_one_that_is_held(store, monkeypatch):
    before = set(leases._OURS)
    with monkeypatch.context() as patched:
        as_if_written = json.dumps({"owner": "other", "expires": "2999-01-01T00:00:00+00:00"})
        patched.setattr(
            leases, "_write", lambda *_: store.write("lease.json", as_if_written.encode())
        )
        with pytest.raises(LeaseError), held(store):
            pass
    assert before == leases._OURS


def test_processes_of_another_container_are_not_known_to_be_dead(store):
    """Its host's name and boot may be this one's; its process numbers mean nothing here."""
    for pid in (4_194_999, stored_pid(store)):  # none here is, and this very one
        as_if(store, pid=pid, pid_namespace="pid:[1]")
        with pytest.raises(LeaseError, match=f"process {pid}"), held(store):
            pass
        store.delete("lease.json")
    as_if(store, pid=4_194_999)
    with held(store):
        assert stored(store)["owner"] != "other"


def stored_pid(store):
    with held(store):
        return stored(store)["pid"]


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"{}", b'{"expires": 3}'])
def test_what_is_no_lease_binds_nobody(store, content):
    store.write("lease.json", content)
    with held(store):
        assert stored(store)["owner"]


def test_it_is_renewed_with_the_progress(store):
    with held(store, renew=0.05) as lease:
        lease.progress = lambda: {"rows": {"refine": 3}}
        first = stored(store)
        deadline = time.monotonic() + 20
        while "progress" not in stored(store) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stored(store)["progress"] == {"rows": {"refine": 3}}
        assert stored(store)["owner"] == first["owner"]


def test_who_lost_it_is_told_and_leaves_it_to_the_other(store):
    told = threading.Event()
    with held(store, renew=0.05) as lease:
        lease.on_lost = told.set
        lose(store)
        assert told.wait(20)
        with pytest.raises(LeaseError, match="taken over"):
            lease.require()
    assert stored(store)["owner"] == "other"


def lose(store):
    store.write("lease.json", json.dumps({**stored(store), "owner": "other"}).encode())


def test_who_lost_it_before_it_could_be_told_is_told_at_once(store):
    told = []
    with held(store, renew=0.05) as lease:
        lose(store)
        assert lease.lost.wait(20)
        lease.on_lost = lambda: told.append("lost")
        assert told == ["lost"]
        time.sleep(0.2)
    assert told == ["lost"]  # and never again


def test_who_could_not_be_told_is_told_at_the_next_renewal(store):
    tries, told = [], threading.Event()

    def tell():
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("out of reach")
        told.set()

    with held(store, renew=0.05) as lease:
        lease.on_lost = tell
        lose(store)
        assert told.wait(20)


def test_of_two_that_begin_at_once_one_is_refused(store, monkeypatch):
    monkeypatch.setattr(leases, "_SETTLE_LOCAL", 1.0)
    outcomes = []

    def begin():
        try:
            with held(store):
                outcomes.append("held")
                time.sleep(1.5)
        except LeaseError:
            outcomes.append("refused")

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


def test_a_store_that_fails_for_a_while_costs_nothing(store, monkeypatch):
    with held(store, renew=0.05) as lease:
        with monkeypatch.context() as broken:

            def fails(*_):
                raise OutputError("503")

            broken.setattr(Store, "write", fails)
            time.sleep(0.3)
        lease.require()
        before = stored(store)["renewed"]
        deadline = time.monotonic() + 20
        while stored(store)["renewed"] == before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert stored(store)["renewed"] != before
