"""What a worker has sent and the broker has not acknowledged yet, place by place, in order."""

from typing import TYPE_CHECKING

from loadtest.simulation.broker import Place, Produced
from workers.tenant import Output

if TYPE_CHECKING:
    from loadtest.simulation.host import Host
    from loadtest.simulation.worker import Worker

__all__ = ["Producer"]

Sent = tuple["Host", int, Output]
"""Whose output it is, the index to acknowledge it by, and the record."""


class Producer:
    """One request per place is under way, as with `max_in_flight_requests_per_connection=1`."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._world = worker.world
        self._queues: dict[Place, list[Sent]] = {}
        self._under_way: dict[Place, list[Sent]] = {}
        self._stalled_until = 0
        self._at_risk: set[Place] = set()  # where what is under way is not replicated yet

    def send(self, host: "Host", index: int, output: Output) -> None:
        place = Place(output.topic, output.partition)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = []
        if not queue and place not in self._under_way:
            self._later(place)
        queue.append((host, index, output))

    def stall(self, n_ms: int) -> None:
        """Send nothing for a while: a checkpoint must wait for it."""
        self._stalled_until = self._world.clock.now + n_ms

    def _later(self, place: Place) -> None:
        clock = self._world.clock
        clock.after(1 + clock.draw(self._world.plan.tuning.send_ms), self._flush, place)

    def _flush(self, place: Place) -> None:
        queue = self._queues.get(place)
        if not self._worker.is_alive or not queue or place in self._under_way:
            return
        wait = max(self._worker.cut_off_until, self._stalled_until) - self._world.clock.now
        if wait > 0:
            self._world.clock.after(wait, self._flush, place)
        elif self._world.strikes("send failed"):
            self._fail(place)
        else:
            self._queues[place] = []
            self._under_way[place] = queue
            self._produce(place)

    def _produce(self, place: Place) -> None:
        """Hand to the broker what is under way to a place."""
        queue = self._under_way[place]
        self._at_risk.add(place)
        produced = Produced(
            [output for _, _, output in queue],
            lambda: self._replicated(place),
            lambda: self._again(place),
        )
        self._world.broker.produce(place, produced)

    def _again(self, place: Place) -> None:
        clock = self._world.clock
        clock.after(10 + clock.draw(30), self._retry, place)

    def _retry(self, place: Place) -> None:
        if self._worker.is_alive and place in self._under_way:
            self._produce(place)

    def _replicated(self, place: Place) -> None:
        world = self._world
        self._at_risk.discard(place)
        if world.strikes("lost ack"):
            world.note(f"an acknowledgement of {place.topic} to {self._worker.name} is lost")
            world.clock.after(20 + world.clock.draw(60), self._unsure, place)
        else:
            ack_ms = world.plan.tuning.ack_ms
            world.clock.after(1 + world.clock.draw(ack_ms), self._acknowledged, place)

    def _unsure(self, place: Place) -> None:
        """Send again what nobody said anything of, and maybe the broker knows no duplicates."""
        if not self._worker.is_alive:
            return
        if self._world.clock.draw(2):
            for _, _, output in self._under_way[place]:
                self._world.broker.append(*output)
        self._acknowledged(place)

    def _acknowledged(self, place: Place) -> None:
        if self._worker.defers(self._acknowledged, place):
            return
        for host, index, _ in self._under_way.pop(place):
            if not host.gone:
                host.acknowledged(index)
        if self._queues.get(place):
            self._later(place)

    def _fail(self, place: Place) -> None:
        """A send that fails for good ends the tenancies whose records they are (12)."""
        self._world.note(f"{self._worker.name} cannot send to {place.topic}")
        for host, _, _ in self._queues.pop(place):
            if not host.gone:
                host.drop()
                self._worker.book.drop(host.task)

    def die(self) -> None:
        """What was queued may have reached the broker in part."""
        draw, broker = self._world.clock.draw, self._world.broker
        for place, queue in self._queues.items():
            n = draw(len(queue) + 1) if draw(2) else 0
            if place not in self._at_risk:  # else it would overtake what is not replicated yet
                for _, _, output in queue[:n]:
                    broker.append(*output)
        self._queues.clear()
