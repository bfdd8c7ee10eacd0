"""Clients of Kafka are closed in a bounded time, and leave neither tasks nor sockets behind.

aiokafka's own `stop` sends what is queued first, and has no deadline: a producer tries for ever
while its broker is silent. Cancelled on its way, it leaves its tasks running, and calls itself
closed. So what `stop` did not reach in time is taken down here, in this order:

1. The sender is cancelled, as often as it takes: it then waits for requests that are on their way,
   and the second time gives them up.
2. What is queued fails; whoever waits for it is told, and its flush ends.
3. The client ends its own tasks and closes its connections, the last resort being to cut them off:
   a connection waits to be rid of what a silent broker does not take.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

__all__ = ["close"]

_STOP_S: Final = 5.0
_STEP_S: Final = 1.0
"""For each thing that is taken down to end by itself."""
_TRIES: Final = 3


async def close(client: AIOKafkaProducer | AIOKafkaConsumer, limit_s: float = _STOP_S) -> None:
    """Stop a client, whatever state it is in: by itself within `limit_s`, else by force."""
    try:
        async with asyncio.timeout(limit_s):
            await client.stop()
    except (KafkaError, OSError, TimeoutError):
        await _take_down(client)
    except asyncio.CancelledError:
        # aiokafka cancels its own fetches and lets the cancellation out; one of ours goes on.
        await _take_down(client)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


async def _take_down(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    if isinstance(client, AIOKafkaProducer):
        await _end(client._sender.sender_task)  # 1
        _fail(client._message_accumulator)  # 2
        connections = client.client
    else:
        connections = client._client
    for connection in connections._conns.values():  # 3
        if connection._writer is not None:
            connection._writer.transport.abort()
    with suppress(KafkaError, OSError, TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(_STEP_S):
            await connections.close()
    await _end(connections._sync_task)


def _fail(queued: Any) -> None:
    """Fail all batches, those that were to be tried again among them: aiokafka's own `fail_all`
    stumbles over these, and leaves errors that nobody has seen."""
    again = [batch for batches in queued._batches.values() for batch in batches]
    queued._batches.clear()
    queued._pending_batches.update(again)  # where they look for themselves when they are done
    error = queued._exception = KafkaError("it was not written in time")
    for batch in tuple(queued._pending_batches):
        batch.failure(error)
        for future in (batch.future, batch._drain_waiter):
            if not future.cancelled():
                future.exception()  # seen: whoever waits for a record has a future of his own


async def _end(task: "asyncio.Task[Any] | None") -> None:
    """Cancel a task until it has ended; its end is nobody's fault any more."""
    for _ in range(_TRIES):
        if task is None or task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=_STEP_S)
