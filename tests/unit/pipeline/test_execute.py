"""What is said when the Ray part of a job breaks down."""

from __future__ import annotations

import itertools

import pytest

from salip_ray.pipeline.execute import _first_cause


def chained(*problems):
    """Exceptions as they are raised from one another, the last one first."""
    for problem, cause in itertools.pairwise(problems):
        problem.__cause__ = cause
    return problems[0]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValueError("no luck"), "ValueError: no luck"),
        (chained(RuntimeError("wrapped"), OSError(28, "disk full")), "disk full"),
        # As Ray Data raises it: its own end of the chain says nothing.
        (chained(RuntimeError("Traceback\n  TypeError: odd"), Exception()), "TypeError: odd"),
        (
            ValueError("no luck\nFailed to apply UDF transform after 1/1 attempts.\nTo change ..."),
            "ValueError: no luck",
        ),
        (KeyError(), "KeyError: no message"),
    ],
)
def test_the_first_cause_that_speaks_is_named(problem, said):
    told = _first_cause(problem)
    assert told.startswith("the job broke down: ")
    assert told.endswith(said)
