"""When a lease book asks, and what it does with the answers."""

from dataclasses import replace

import pytest

from router.store.calls import Claimed, ClaimReply, RenewOutcome, TaskId
from workers.leases import Granted, LeaseBook, LeaseCall, Lost, Regained, Wanted

TTL = 1000


def _book() -> LeaseBook:
    return LeaseBook("w", [0], TTL, kinds=("synaptic",), new_token=lambda: "t")


def _claims(book: LeaseBook, now: int) -> list[LeaseCall]:
    return [call for call in book.due(now) if call.verb == "claim"]


def _first_claim_after(book: LeaseBook, now: int, expiry_ms: int | None) -> int:
    """In how many ms the next claim is due, when one at `now` brought nothing."""
    (claim,) = _claims(book, now)
    book.replied(claim, ClaimReply((), (), 0, expiry_ms), now)
    return next(ms for ms in range(1, 10 * TTL) if _claims(book, now + ms))


def test_claims_come_four_times_in_a_time_to_live() -> None:
    assert _first_claim_after(_book(), 0, None) == TTL // 4


def test_claim_comes_when_the_lease_of_another_runs_out() -> None:
    assert _first_claim_after(_book(), 0, 70) == 71


def test_lease_that_runs_out_late_does_not_delay_the_next_claim() -> None:
    assert _first_claim_after(_book(), 0, 900) == TTL // 4


def test_worker_that_holds_its_most_tasks_claims_and_wants_no_more() -> None:
    book = LeaseBook("w", [0], TTL, kinds=("synaptic",), new_token=lambda: "t", most=1)
    (claim,) = _claims(book, 0)
    task = TaskId("op", 0, 0)
    book.replied(
        claim, ClaimReply((Claimed(task, "t", "synaptic", 1, 1, 0, "", 0, "", 0),), (), 0), 0
    )
    verbs = {call.verb for now in range(0, 10 * TTL, 50) for call in book.due(now)}
    assert not verbs & {"claim", "want"}


def _asked(book: LeaseBook, since: int) -> set[str]:
    """The verbs of ten times to live in which nothing is to be had."""
    verbs = set()
    for now in range(since, since + 10 * TTL, 50):
        for call in book.due(now):
            verbs.add(call.verb)
            replies = {"claim": ClaimReply((), (), 0, None), "renew": {}}
            book.replied(call, replies.get(call.verb), now)
    return verbs


def test_cold_worker_claims_what_is_free_and_asks_for_nothing_else() -> None:
    book = _book()
    book.is_cold = True
    assert _asked(book, 0) == {"renew", "claim"}
    book.is_cold = False
    assert _asked(book, 10 * TTL) == {"renew", "claim", "want"}


def _alone(reply: ClaimReply) -> bool:
    """Whether a process that was started for a task goes on after this reply to its first claim."""
    task = TaskId("op", 0, 0)
    book = LeaseBook("w", [0], TTL, kinds=("synaptic",), new_token=lambda: "t", alone=task)
    (claim,) = _claims(book, 0)
    book.replied(claim, reply, 0)
    return not book.is_stopping


def test_process_of_a_suspicious_task_ends_when_another_one_has_the_task() -> None:
    claimed = Claimed(TaskId("op", 0, 0), "t", "synaptic", 1, 3, 0, "", 0, "", 0)
    assert _alone(ClaimReply((claimed,), (), 0))
    assert _alone(ClaimReply((), (), 300)), "nobody claims while the store settles"
    assert not _alone(ClaimReply((), (), 0))


def test_task_is_wanted_at_each_renewal_until_it_is_given() -> None:
    book, task = _book(), TaskId("a" * 32, 0, 0)
    renew, claim = book.due(0)
    assert book.replied(renew, {}, 0) == []
    claimed = Claimed(task, claim.token, "synaptic", 1, 1, 0, "", 0, "", 0)
    assert book.replied(claim, ClaimReply((claimed,), (), 0), 0) == [Granted(claimed)]
    for now in range(TTL, 3 * TTL, TTL):
        (renew,) = (call for call in book.due(now) if call.verb == "renew" and call.leases)
        assert book.replied(renew, {task: RenewOutcome.WANTED}, now) == [Wanted(task)]
    book.release(task)
    assert not [call for call in book.due(4 * TTL) if call.leases]


def test_a_task_that_is_given_back_is_claimed_at_once_by_who_holds_none() -> None:
    book = _book()
    (claim,) = _claims(book, 0)
    book.replied(claim, ClaimReply((), (), 0, None), 0)
    assert not _claims(book, 7)
    book.released(TaskId("a" * 32, 0, 0), 7)
    assert _claims(book, 7)


def test_who_holds_tasks_lets_others_claim_first_what_is_given_back() -> None:
    book = _book()
    (claim,) = _claims(book, 0)
    held = [TaskId(letter * 32, 0, 0) for letter in "bc"]
    claimed = tuple(Claimed(t, claim.token, "synaptic", 1, 1, 0, "", 0, "", 0) for t in held)
    book.replied(claim, ClaimReply(claimed, (), 0), 0)
    (claim,) = _claims(book, 100)
    book.replied(claim, ClaimReply((), (), 0, None), 100)
    book.released(TaskId("a" * 32, 0, 0), 107)
    assert [bool(_claims(book, now)) for now in (107, 108, 109)] == [False, False, True]


def test_what_is_given_back_in_a_partition_that_is_not_served_matters_to_nobody() -> None:
    book = _book()
    (claim,) = _claims(book, 0)
    book.replied(claim, ClaimReply((), (), 0, None), 0)
    book.released(TaskId("a" * 32, 0, 1), 7)
    assert not _claims(book, 8)


def test_many_tasks_that_are_given_back_are_claimed_without_a_pause() -> None:
    book = _book()
    (claim,) = _claims(book, 0)
    book.replied(claim, ClaimReply((), (), 0, None), 0)
    free = [TaskId(letter * 32, 0, 0) for letter in "abc"]
    for task in free:
        book.released(task, 0)
    claimed_at: list[int] = []
    for now in range(50):
        for claim in _claims(book, now):
            granted = tuple(
                Claimed(free.pop(), claim.token, "synaptic", 1, 1, 0, "", 0, "", 0)
                for _ in free[:1]
            )
            book.replied(claim, ClaimReply(granted, (), 0, None), now)
            claimed_at += [now] * len(granted)
    assert claimed_at == [0, 1, 3]


def test_process_for_one_task_leaves_once_the_task_is_not_here_any_more() -> None:
    task = TaskId("op", 0, 0)
    book = LeaseBook("w", [0], TTL, kinds=("synaptic",), new_token=lambda: "t", alone=task)
    (claim,) = _claims(book, 0)
    granted = ClaimReply((Claimed(task, "t", "synaptic", 1, 3, 0, "", 0, "", 0),), (), 0)
    book.replied(claim, granted, 0)
    assert not (book.due(1) and book.is_stopping)
    book.drop(task)  # it could not be restored, say
    book.due(2)
    assert book.is_stopping


def test_who_has_nothing_left_leaves_even_if_it_is_asked_at_each_renewal_only() -> None:
    book = _book()
    for call in book.due(0):
        book.failed(call, 0)
    book.stop()
    assert [call.verb for call in book.due(TTL)] == ["leave"]


def _ask(book: LeaseBook, now: int, renewed: RenewOutcome, *claimed: Claimed) -> list[object]:
    """All that is due is asked and answered, renewals first."""
    calls = sorted(book.due(now), key=lambda call: call.verb, reverse=True)
    events: list[object] = []
    for call in calls:
        if call.verb == "renew":
            events += book.replied(call, dict.fromkeys([TASK], renewed), now)
        elif call.verb == "claim":
            events += book.replied(call, ClaimReply(claimed, (), 0, None), now)
        else:
            book.failed(call, now)
    return events


TASK = TaskId("op", 0, 0)
GRANTED = Claimed(TASK, "t1", "synaptic", 1, 1, 0, "", 0, "", 0)
AGAIN = replace(GRANTED, token="t2")


@pytest.mark.parametrize("claimed", [(AGAIN,), ()], ids=["by us", "by another"])
def test_loss_of_a_task_that_is_being_claimed_again_is_believed_only_when_that_is_answered(
    claimed: tuple[Claimed, ...],
) -> None:
    book = _book()
    assert _ask(book, 0, RenewOutcome.OK, GRANTED) == [Granted(GRANTED)]
    assert _ask(book, TTL, RenewOutcome.VANISHED) == []
    events = _ask(book, 2 * TTL, RenewOutcome.LOST, *claimed)
    assert events == [Regained(TASK, "t2") if claimed else Lost(TASK)]
