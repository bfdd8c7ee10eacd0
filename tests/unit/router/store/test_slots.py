"""Slots of keys, and what a cluster tells of them."""

import pytest

from router.store.calls import prefix
from router.store.errors import StoreReplyError
from router.store.slots import Address, by_slot, slot_map, slot_of
from router.store.values import Reply

_ASKED = Address("asked", 1)


def _row(first: int, last: int, *nodes: tuple[bytes | None, int]) -> list[Reply]:
    return [first, last, *([host, port, b"id", []] for host, port in nodes)]


@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 12739), ("foo", 12182), ("{foo}.bar", 12182), ("foo{}{bar}", 8363), ("", 0)],
)
def test_a_slot_is_that_of_the_specification(key: str, slot: int) -> None:
    assert slot_of(key) == slot


def test_all_keys_of_a_partition_are_in_one_slot() -> None:
    keys = [prefix(7), f"{prefix(7)}tasks", f"{prefix(7)}blob:{{nonce}}:1", "{p7}"]
    assert len({slot_of(key) for key in keys}) == 1


def test_commands_are_sent_together_by_slot_and_keep_their_places() -> None:
    commands = [("GET", "{a}1"), ("GET", "{b}1"), ("HGETALL", "{a}2"), ("GET", "{b}2")]
    assert by_slot(commands) == [[0, 2], [1, 3]]


def test_a_slot_belongs_to_the_range_it_lies_in() -> None:
    slots = slot_map([_row(100, 200, (b"b", 2)), _row(0, 99, (b"a", 1), (b"r", 9))], _ASKED)
    found = [slots.owner(slot) for slot in (0, 99, 100, 200, 201)]
    assert found == [("a", 1), ("a", 1), ("b", 2), ("b", 2), None]
    assert slots.masters == (("a", 1), ("b", 2))
    assert slots.nodes == (("a", 1), ("b", 2), ("r", 9))


def test_what_was_learnt_of_one_slot_comes_before_the_ranges() -> None:
    slots = slot_map([_row(0, 99, (b"a", 1))], _ASKED).with_moved(5, Address("b", 2))
    assert [slots.owner(slot) for slot in (4, 5, 6)] == [("a", 1), ("b", 2), ("a", 1)]
    assert slots.masters == (("a", 1), ("b", 2))


@pytest.mark.parametrize("name", [None, b"", b"?"])
def test_a_node_that_does_not_know_its_name_is_the_one_that_was_asked(name: bytes | None) -> None:
    assert slot_map([_row(0, 9, (name, 7))], _ASKED).owner(3) == ("asked", 7)


@pytest.mark.parametrize("reply", [b"OK", [[0, 1]], [[0, b"x", [b"a", 1]]], [b""]])
def test_a_reply_of_another_form_is_an_error(reply: Reply) -> None:
    with pytest.raises(StoreReplyError):
        slot_map(reply, _ASKED)


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    assert str(Address("::1", 6379)) == "[::1]:6379"
