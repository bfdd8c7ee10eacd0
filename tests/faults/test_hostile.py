"""What nobody should send stops no gateway, and changes no answer to who goes on beside it."""

import pytest

from loadtest.hostile.checker import Limits
from loadtest.hostile.report import as_text
from loadtest.hostile.runner import play

pytestmark = [pytest.mark.faults, pytest.mark.serial]

# A machine that runs other tests beside this one gives a thread a fraction of a processor, and what
# one turn of the loop then finds ready is more: `make hostile` holds to 50 ms on a machine at rest.
_LIMITS = Limits(held_s=0.2)


@pytest.mark.parametrize("doors", [("http",), ("records", "store")], ids=", ".join)
async def test_hostile_input_harms_nobody(doors: tuple[str, ...]) -> None:
    played = await play(20_260, 20_000, 25.0, doors)
    assert played.findings(_LIMITS) == [], as_text(played, _LIMITS)
    assert {door for door, _, _ in played.outcomes} == {*doors}
    assert played.n_inputs > 500
