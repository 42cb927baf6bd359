"""How long a line of a batch waits: on its own account, or on that of all."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from semroute import RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.cli.answer import Answer
from semroute_service.cli.patience import Patience, Tries


def refused(retry_after: float | None, reason: str = "BACKENDS_UNAVAILABLE") -> RouterError:
    return RouterError(grpc.StatusCode.UNAVAILABLE, "no", reason, retry_after=retry_after)


def after(*failures: pb.ErrorClass) -> Answer:
    """A line whose last call ended after these attempts."""
    answer = Answer()
    for failure in failures:
        answer.take(pb.CompleteResponse(attempt=pb.Attempt(error_class=failure)))
    return answer


DOWN = pb.ERROR_CLASS_PROVIDER_UNAVAILABLE
LIMITED = pb.ERROR_CLASS_PROVIDER_RATE_LIMIT


def test_what_reached_nobody_waits_as_long_as_it_is_told() -> None:
    delay = Patience(300).delay(refused(20), after(), Tries())
    assert delay
    assert (delay.most, delay.least < 1) == (20, True)


def test_a_trial_may_end_sooner_than_it_is_told() -> None:
    """A backend that is being tried again is worth a look before a wait is over that is shorter
    than the minute that the trial may take."""
    delay = Patience(10).delay(refused(60), after(), Tries())
    assert delay
    assert 9 < delay.most <= 10


@pytest.mark.parametrize("told", [None, 301.0])
def test_what_lasts_too_long_is_not_waited_for(told: float | None) -> None:
    assert Patience(300).delay(refused(told), after(), Tries()) is None


@pytest.mark.parametrize("reason", ["UPSTREAM_CREDENTIALS", "STREAM_INTERRUPTED"])
def test_what_no_wait_mends_is_not_waited_for(reason: str) -> None:
    assert Patience(300).delay(refused(1, reason), after(), Tries()) is None


async def test_all_wait_on_one_account_that_an_answer_clears() -> None:
    """Once it is used up the next line does not wait either, until somebody is answered."""
    patience = Patience(0.05)
    assert patience.delay(refused(60), after(), Tries())
    await asyncio.sleep(0.06)
    assert patience.delay(refused(60), after(), Tries()) is None
    news = patience.news
    patience.answered()
    assert news.is_set()
    assert not patience.news.is_set()
    assert patience.delay(refused(60), after(), Tries())


def test_a_rate_limit_counts_on_the_lines_own_account() -> None:
    """Answers of others do not lengthen it."""
    patience, tries = Patience(30), Tries()
    for _ in range(2):
        delay = patience.delay(refused(12), after(LIMITED), tries)
        assert delay
        assert delay.least == delay.most == 12
        patience.answered()
    assert patience.delay(refused(12), after(LIMITED), tries) is None


def test_a_line_that_fails_is_not_asked_for_ever() -> None:
    """Where its backends are down it is asked again three times, however long the wait may be."""
    patience, tries = Patience(1e6), Tries()
    for _ in range(3):
        assert patience.delay(refused(5), after(DOWN), tries)
        patience.answered()
    assert patience.delay(refused(5), after(DOWN), tries) is None


def test_a_line_that_fails_alone_is_not_asked_again() -> None:
    """Where the backends can be asked again in a moment it is the line that fails."""
    assert Patience(300).delay(refused(1), after(DOWN), Tries()) is None
