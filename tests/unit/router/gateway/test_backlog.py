"""Unread input is estimated, bounded, and tells a client that is refused when to come back."""

import pytest

from router.gateway.backlog import Backlog
from router.gateway.errors import TooBusy
from router.status import task_detail
from router.store.calls import StatusReply, TaskId, TaskStatus, WorkerInfo, WorkerStatus

_TASK = TaskId("a" * 32, 0, 0)


def _lag(n_records: int) -> list[StatusReply]:
    """Ingest has so many records before it."""
    details = {task_detail(_TASK, "lag_records"): n_records}
    worker = WorkerStatus("w", True, WorkerInfo(1, ("ingest",), 0, details))
    task = TaskStatus(_TASK, "ingest", 1, "w", 500, 0, 1, 10, "", "", "")
    return [StatusReply(0, 0, 0, (worker,), (task,))]


def _refused(backlog: Backlog, n_bytes: int) -> int:
    with pytest.raises(TooBusy) as told:
        backlog.check(_TASK.operator, 0, n_bytes)
    return told.value.retry_after


@pytest.fixture
def backlog() -> Backlog:
    """10,000 bytes may lie unread; records have 100."""
    made = Backlog(10_000)
    made.update(_lag(0), 0.0)
    for _ in range(100):
        made.sent(_TASK.operator, 0, 100)
    return made


def test_what_was_sent_counts_as_unread_until_ingest_tells_otherwise(backlog: Backlog) -> None:
    assert backlog.unread(_TASK.operator, 0) == 10_000
    backlog.update(_lag(40), 1.0)
    assert backlog.unread(_TASK.operator, 0) == 4_000


def test_more_than_the_limit_is_refused(backlog: Backlog) -> None:
    _refused(backlog, 100)
    backlog.update(_lag(40), 1.0)
    backlog.check(_TASK.operator, 0, 6_000)


def test_a_client_waits_for_as_long_as_its_bytes_take_to_be_read(backlog: Backlog) -> None:
    backlog.update(_lag(90), 1.0)  # 1,000 bytes a second
    assert _refused(backlog, 1_000 + 3_500) == 4


def test_a_slower_ingest_makes_clients_wait_longer(backlog: Backlog) -> None:
    backlog.update(_lag(90), 1.0)
    quick = _refused(backlog, 4_500)
    for second in range(2, 20):
        backlog.update(_lag(90), float(second))
    assert _refused(backlog, 4_500) > quick


def test_without_a_rate_and_at_most_a_client_waits_within_bounds(backlog: Backlog) -> None:
    assert _refused(backlog, 100) == 1
    backlog.update(_lag(99), 100.0)  # one byte a second
    assert _refused(backlog, 1_000_000) == 60
