"""How a record that ends whoever takes it in is found, and passed over (28)."""

import pytest

from router.store.calls import Claimed, TaskId
from workers.hand import accused, is_of_records, portions
from workers.reading import Record

TOPIC = "snn.spikes.a"
RECORDS = [Record(TOPIC, offset, 0, None, b"") for offset in range(100, 150)]


def claimed(claims: int, hand_last: str = "", hand_count: int = 0) -> Claimed:
    task = TaskId("a", 0, 0)
    return Claimed(task, "t", "synaptic", 1, claims, 0, hand_last, hand_count, "w", 0)


def shown(claim: Claimed) -> list[str]:
    return [portion.hand for portion in portions(claim, RECORDS)]


@pytest.mark.parametrize(
    "claim",
    [
        claimed(1), claimed(3), claimed(4, "*", 1), claimed(5, f"record:{TOPIC}@100-115", 1),
        claimed(6, f"record:{TOPIC}@107-107", 1), claimed(7, f"record:{TOPIC}@149-149", 2),
        claimed(7, f"record:{TOPIC}@90-103", 2), claimed(7, "record:snn.in.x@107-107", 2),
    ],
)  # fmt: skip
def test_portions_are_all_records_in_their_order(claim: Claimed) -> None:
    assert [r for portion in portions(claim, RECORDS) for r in portion.records] == RECORDS


def test_first_owner_that_runs_alone_names_no_records() -> None:
    assert shown(claimed(3)) == ["*"]


def test_records_are_named_in_runs_that_do_not_cost_a_word_each() -> None:
    assert len(shown(claimed(4, "*", 1))) < len(RECORDS) / 10


def test_records_that_were_named_together_are_named_one_by_one_after_a_death() -> None:
    hands = shown(claimed(5, f"record:{TOPIC}@116-118", 1))
    assert [h.rpartition("@")[2] for h in hands[:5]] == [
        "100-115", "116-116", "117-117", "118-118", "119-134",
    ]  # fmt: skip


def survives(claim: Claimed, deadly: int) -> tuple[bool, str]:
    """Whether an owner outlives a record, and what it had in hand at its end."""
    for portion in portions(claim, RECORDS):
        if not portion.error and deadly in [r.offset for r in portion.records]:
            return False, portion.hand
    return True, ""


@pytest.mark.parametrize("deadly", [100, 107, 116, 149])
def test_deadly_record_ends_four_owners_that_run_alone_and_no_more(deadly: int) -> None:
    hand_last, hand_count = "", 0
    for claims in range(3, 7):
        lives, hand = survives(claimed(claims, hand_last, hand_count), deadly)
        assert not lives
        hand_last, hand_count = hand, hand_count + 1 if hand == hand_last else 1
    last = claimed(7, hand_last, hand_count)
    assert survives(last, deadly) == (True, "")
    (refused,) = [p for p in portions(last, RECORDS) if p.error]
    assert [r.offset for r in refused.records] == [deadly]
    assert f"offset {deadly} of topic {TOPIC}" in refused.error


def test_only_hands_of_windows_accuse_a_stream() -> None:
    assert accused(claimed(6, "n/1/0#4", 2))[0] == "n/1/0"
    for claim in (claimed(6, "n/1/0#4", 1), claimed(6, f"record:{TOPIC}@1-1", 2), claimed(3)):
        assert accused(claim) == ("", "")


def test_hand_of_records_is_told_from_that_of_a_window() -> None:
    assert is_of_records(f"record:{TOPIC}@1-2")
    assert not any(is_of_records(hand) for hand in ("*", "", "n/1/0#4"))
