"""What a new owner does with a checkpoint in the format of another release."""

from typing import Any, cast

import pytest

from router.store.calls import TaskId
from workers.snapshot import VERSION
from workers.tenancy import Tenancy
from workers.tenant import Tenant


class _Asked:
    """A tenant that tells whether a full snapshot was asked for, and has none."""

    replaying = False

    def __init__(self, found_damage: bool = False) -> None:
        self.found_damage = found_damage
        self.full: bool | None = None

    def snapshot(self, full: bool, anyhow: bool = False) -> Any:
        self.full = full
        return None


@pytest.mark.parametrize(
    ("number", "format_version", "full"),
    [(0, VERSION, True), (7, VERSION, False), (7, VERSION + 1, True), (7, VERSION - 1, True)],
)
def test_a_checkpoint_in_another_format_is_replaced_as_a_whole(
    number: int, format_version: int, full: bool
) -> None:
    asked = _Asked()
    tenancy = Tenancy(TaskId("a", 0, 0), "token", cast(Tenant, asked), number, format_version)
    tenancy.begin()
    assert asked.full is full
