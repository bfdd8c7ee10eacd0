"""Input that the broker dropped before it was applied is told loudly, never skipped."""

import numpy as np
import pytest

from loadtest.faults.contents import DIGITS, EVENTS
from loadtest.traffic import sample_record
from router.client import StreamFailed
from router.settings import EMBEDDED_RETENTION_BYTES
from tests.faults.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_RECORD_BYTES = 500_000


async def test_streams_end_by_name_when_their_input_was_truncated_while_no_worker_was_there(
    served: Served,
) -> None:
    content, other = served.contents.walks[0], served.contents.walks[-1]
    n = len(content.samples)
    await served.send("cut", content, 0, 5)
    await served.send("elsewhere", other, 0, 5)
    await served.until_emitted("cut", DIGITS)
    for name in list(served.world.stack.workers):
        await served.world.stack.stop_worker(name)
    await served.send("cut", content, 5, 8)
    junk = sample_record("junk", np.zeros(_RECORD_BYTES, np.uint8), request=True)
    for _ in range(EMBEDDED_RETENTION_BYTES // _RECORD_BYTES + 3):
        await (await served.publisher.publish(DIGITS, junk))
    for number in range(2):
        await served.world.start_worker(f"later-{number}")
    with pytest.raises(StreamFailed, match=r"EraLost|InputLost"):
        await served.answer("cut", DIGITS)
    await served.send("elsewhere", other, 5, len(other.samples))
    assert (
        await served.answer("elsewhere", EVENTS) == (served.contents.expected[other.name][EVENTS])
    )
    await served.send("after", content, 0, n)
    assert await served.answer("after", DIGITS) == served.contents.expected[content.name][DIGITS]
