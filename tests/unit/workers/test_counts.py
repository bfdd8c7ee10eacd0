"""What a task tells of itself four times a second is counted as it changes, not then."""

from collections import Counter
from random import Random

import pytest

from loadtest.simulation.host import Host
from loadtest.simulation.plan import draw
from loadtest.simulation.runner import play
from workers.ingest import Ingest
from workers.tally import Tally
from workers.task import Task
from workers.tenant import Tenant


def counted(tenant: Tenant) -> tuple[int, dict[str, int]]:
    """Windows that wait, and open streams by network, counted anew."""
    if isinstance(tenant, Ingest):
        flows = tenant._flows.values()
        waiting = [f.waiting for f in flows]
        waiting += [ended.networks for ended in tenant._superseded._open.values()]
        return sum(len(f.cuts) for f in flows), dict(Counter(n for nets in waiting for n in nets))
    assert isinstance(tenant, Task)
    streams = tenant._streams.values()
    return sum(len(s.inbox[s.place.first]) for s in streams), {}


@pytest.mark.parametrize("first", range(0, 90, 30))
def test_counts_stay_right_whatever_befalls_a_task(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, n_seen = Host._turn, 0

    def checked(self: Host) -> bool:
        nonlocal n_seen
        more = turn(self)
        tenant = self.tenant
        n_waiting, n_open = counted(tenant)
        assert tenant.n_waiting == n_waiting
        if isinstance(tenant, Ingest):
            assert tenant.open_streams() == n_open
        n_seen += n_waiting > 0
        return more

    monkeypatch.setattr(Host, "_turn", checked)
    for seed in range(first, first + 30):
        assert play(draw(seed)) is None
    assert n_seen > 100


def test_tally_counts_the_sets_that_are_in_it() -> None:
    rng, tally, sets = Random(7), Tally[int](), dict.fromkeys(range(9), frozenset[str]())
    for _ in range(1000):
        number = rng.randrange(9)
        sets[number] = frozenset(rng.sample("abcd", rng.randrange(5)))
        tally.put(number, sets[number])
        assert tally.counts() == Counter(name for names in sets.values() for name in names)
