"""What is refused when too much is in flight, and how long a client is told to wait."""

import pytest

from router.gateway.admission import Admission
from router.gateway.errors import TooBusy


def test_a_body_is_refused_unread_only_when_nothing_more_fits() -> None:
    admission = Admission(10, 1000)
    admission.check_room(0.0)
    with admission.hold(9, 100):
        admission.check_room(0.0)
    with admission.hold(10, 100), pytest.raises(TooBusy):
        admission.check_room(0.0)
    with admission.hold(1, 1000), pytest.raises(TooBusy):
        admission.check_room(0.0)


def test_the_wait_is_what_the_queue_takes_at_the_present_rate() -> None:
    admission = Admission(100, 10_000)
    for second in range(10):
        admission.answered(20, float(second))
    with admission.hold(100, 100), pytest.raises(TooBusy) as told:
        admission.check(66, 100, 10.0)
    assert told.value.retry_after == 4  # 66 samples at 20 per second
