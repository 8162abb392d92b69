"""Start a local Ray, or join one."""

from __future__ import annotations

import pytest
import ray

from salip_ray.cluster import session
from salip_ray.errors import ResourceError


@pytest.fixture
def started(monkeypatch):
    """What each start of Ray raises, in turn (None: it comes up); how often it was tried."""
    tried = []

    def script(*problems):
        def init(**_):
            tried.append(1)
            problem = problems[len(tried) - 1]
            if problem is not None:
                raise problem

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        return tried

    return script


TIMED_OUT = Exception("The current node timed out during startup.")


def test_start_of_ray_is_retried_after_timeout(started):
    tried = started(TIMED_OUT, None)
    session.start_local(lambda machine: machine.cores)
    assert len(tried) == 2


def test_repeated_start_timeouts_are_one_line(started):
    tried = started(TIMED_OUT, TIMED_OUT, TIMED_OUT)
    with pytest.raises(ResourceError, match=r"could not be started.*timed out") as caught:
        session.start_local(lambda machine: machine.cores)
    assert len(tried) == 3
    assert "\n" not in str(caught.value)


def test_other_start_error_is_not_retried(started):
    tried = started(RuntimeError("no room on the disk"))
    with pytest.raises(ResourceError, match="no room on the disk"):
        session.start_local(lambda machine: machine.cores)
    assert len(tried) == 1


@pytest.mark.parametrize("own_token", [True, False])
def test_a_cluster_that_is_joined_keeps_its_own_token(monkeypatch, own_token):
    import os

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with session._environment(own_token=own_token):
        assert ("RAY_AUTH_TOKEN" in os.environ) is own_token
    assert "RAY_AUTH_TOKEN" not in os.environ
