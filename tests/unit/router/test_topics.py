"""Names of topics and keys of records."""

import pytest

from router.topics import (
    DEAD_LETTER,
    TopicError,
    check_name,
    group_key,
    in_topic,
    out_topic,
    parse_group_key,
    spikes_topic,
)

OPERATOR = "0123456789abcdef" * 2


def test_topics_are_named_by_input_operator_and_network() -> None:
    assert in_topic("digits") == "snn.in.digits"
    assert spikes_topic(OPERATOR) == f"snn.spikes.{OPERATOR}"
    assert out_topic("digits.v2_B-1") == "snn.out.digits.v2_B-1"
    assert DEAD_LETTER == "snn.dead-letter"


def test_longest_legal_name_makes_a_topic_that_kafka_allows() -> None:
    assert len(out_topic("n" * 100)) < 249


@pytest.mark.parametrize(
    "name", ["", "n" * 101, "a b", "a/b", "ä", "a\n", "a,b", "a;b", ".", "..", "..."]
)
def test_name_that_kafka_would_refuse_is_refused(name: str) -> None:
    for make in (check_name, in_topic, out_topic):
        with pytest.raises(TopicError, match="legal"):
            make(name)


@pytest.mark.parametrize("name", ["snn.in.x", "snn.out.x", "snn.", "snn.dead-letter"])
def test_name_that_looks_like_a_topic_of_the_system_is_refused(name: str) -> None:
    with pytest.raises(TopicError, match=r"not beginning with snn\."):
        check_name(name)


@pytest.mark.parametrize("name", ["a.", ".a", "snn", "snn_in", "-", "_"])
def test_name_of_other_legal_characters_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "operator", ["", OPERATOR.upper(), OPERATOR[1:], OPERATOR + "\n", "g" * 32]
)
def test_operator_that_is_not_a_hash_is_refused(operator: str) -> None:
    with pytest.raises(TopicError, match="32 digits"):
        spikes_topic(operator)
    with pytest.raises(TopicError, match="32 digits"):
        group_key(operator, 0)


@pytest.mark.parametrize("group", [0, 1, 10, 2**32 - 1])
def test_key_of_a_group_is_read_as_it_was_written(group: int) -> None:
    assert group_key(OPERATOR, group) == f"{OPERATOR}/{group}".encode()
    assert parse_group_key(group_key(OPERATOR, group)) == (OPERATOR, group)


@pytest.mark.parametrize("group", [-1, 2**32])
def test_group_beyond_its_range_is_refused(group: int) -> None:
    with pytest.raises(TopicError, match="not legal"):
        group_key(OPERATOR, group)


@pytest.mark.parametrize(
    "end", [b"", b"/", b"/01", b"/-1", b"/1\n", b"/4294967296", b"/1/2", b"/\xff"]
)
def test_key_that_is_not_of_a_group_is_refused(end: bytes) -> None:
    with pytest.raises(TopicError, match="synapse group"):
        parse_group_key(OPERATOR.encode() + end)
