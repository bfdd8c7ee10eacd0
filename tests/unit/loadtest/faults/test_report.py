"""A run under faults as tables, and its place in a document."""

import json
from collections import Counter
from dataclasses import asdict

import pytest

from loadtest.faults.history import Emission, End, History, Injected, Sent, Wire
from loadtest.faults.report import as_text, summarise, together
from loadtest.faults.runner import Outcome
from loadtest.faults.write import MarkError, put, summary_of

_ERROR = "Stream 's' of network 'n' (partition 0) failed: InputLost: stream s at window 3: gone"


@pytest.fixture
def outcome() -> Outcome:
    """One request that was answered, one stream that was lost with the store and its worker."""
    history = History(expected={"a": {"n": (b"x",)}, "b": {"n": (b"x", b"y")}})
    history.sent += [
        Sent("r", "a", ("n",), 0, True, 0.0),
        Sent("s", "b", ("n",), 0, False, 0.0),
        Sent("s", "b", ("n",), 1, True, 1.0),
    ]
    history.emissions.append(Emission("n", "r", 0, b"x", 0.1))
    history.ends += [End("n", "r", "", 0.1), End("n", "s", _ERROR, 8.0)]
    wire = Wire("n", 0, 1, 0, 0, True, b"x", 0.1)
    history.wire += [wire, wire]
    history.faults += [
        Injected(0, "wipe-store", "store", 1.0, 2.0, ("*",)),
        Injected(1, "kill-worker", "w", 3.0, 3.0, ("w",)),
        Injected(2, "kill-worker", "w", 4.0, 4.0, ("w",)),
    ]
    return Outcome(history, Counter(fenced_writes_total=2), 5, 9.0)


def test_a_summary_counts_faults_records_and_ends_by_reason(outcome: Outcome) -> None:
    summary = summarise(outcome, 7, "embedded")
    assert summary.ok
    assert (summary.n_faults, summary.faults) == (3, {"wipe-store": 1, "kill-worker": 2})
    assert (summary.n_records, summary.n_requests, summary.n_streams) == (3, 1, 1)
    assert summary.n_repeats == 1
    assert summary.named_errors == {"InputLost": 1}
    assert summary.excuses == ["kill-worker with wipe-store"]
    assert summary.counts["fenced_writes_total"] == 2


def test_the_tables_tell_them(outcome: Outcome) -> None:
    text = as_text(summarise(outcome, 7, "embedded"))
    for row in (
        "| embedded, seed 7, 9 s | |",
        "| faults injected | 3 |",
        "| **lost** | 0 |",
        "| - InputLost | 1 |",
        "| - when kill-worker with wipe-store |  |",
        "| kill-worker | 2 |",
    ):
        assert row in text.splitlines()


def test_what_is_printed_as_json_reads_back(outcome: Outcome) -> None:
    outcome.history.ends.append(End("n", "r", "", 0.1))
    summary = summarise(outcome, 7, "embedded")
    assert not summary.ok
    again = summary_of(json.loads(json.dumps(asdict(summary))))
    assert as_text(again) == as_text(summary)
    assert again.findings == summary.findings


def test_a_text_takes_the_place_of_the_last_one_between_its_marks() -> None:
    document = "head\n<!-- begin a -->\nold\n<!-- end a -->\ntail\n"
    once = put(document, "a", "new\n")
    assert once == "head\n<!-- begin a -->\nnew\n<!-- end a -->\ntail\n"
    assert put(once, "a", "new") == once


def test_a_document_without_the_marks_is_left_alone_with_a_sentence() -> None:
    with pytest.raises(MarkError, match="no lines <!-- begin b -->"):
        put("<!-- begin a -->\n<!-- end a -->", "b", "x")


def test_rounds_are_added_up(outcome: Outcome) -> None:
    one, other = (summarise(outcome, seed, "embedded") for seed in (7, 8))
    both = together([one, other])
    assert (both.seed, both.n_faults) == (7, 2 * one.n_faults)
    assert both.findings == [*one.findings, *other.findings]
    assert both.counts == {name: 2 * n for name, n in one.counts.items()}
    assert together([one]) == one
