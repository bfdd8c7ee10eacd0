"""A run under faults as tables. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.faults.checkers import CHECKERS, Finding, excuse_of, judge
from loadtest.faults.history import History, Injected
from loadtest.faults.runner import Outcome

__all__ = ["Summary", "as_text", "summarise", "together"]

_COUNTED: Final = (
    "fenced_writes_total",
    "duplicates_dropped_total",
    "duplicate_requests_total",
    "duplicate_records_total",
    "windows_replayed_total",
    "checkpoints_total",
    "checkpoints_refused_total",
    "poison_frames_total",
    "unsealed_total",
    "dead_letters_total",
)


@dataclass(frozen=True)
class Summary:
    """What a run amounts to. `named_errors` are streams that ended with an error, by reason."""

    seed: int
    stack: str
    seconds: float
    faults: Mapping[str, int]
    n_unplayed: int
    n_records: int
    n_requests: int
    n_streams: int
    n_answers: int
    n_wire: int
    n_repeats: int
    named_errors: Mapping[str, int]
    excuses: Sequence[str]
    found: Mapping[str, int]
    findings: Sequence[Finding]
    counts: Mapping[str, int]

    @property
    def n_faults(self) -> int:
        """Faults that were injected."""
        return sum(self.faults.values())

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.findings


def summarise(outcome: Outcome, seed: int, stack: str) -> Summary:
    """Judge a run and count what it did."""
    history = outcome.history
    findings = judge(history)
    closed = [sent for sent in history.sent if sent.last]
    errors = [end for end in history.ends if end.error]
    first = {sent.stream for sent in closed if sent.ordinal == 0}
    return Summary(
        seed=seed,
        stack=stack,
        seconds=outcome.seconds,
        faults=dict(Counter(f.kind for f in history.faults)),
        n_unplayed=len(history.unplayed),
        n_records=len(history.sent),
        n_requests=len(first),
        n_streams=len(closed) - len(first),
        n_answers=len(history.emissions),
        n_wire=len(history.wire),
        n_repeats=_n_repeats(history),
        named_errors=dict(Counter(_reason(end.error) for end in errors)),
        excuses=sorted({_combination(excuse_of(history, end)) for end in errors}),
        found={name: sum(f.checker == name for f in findings) for name in CHECKERS},
        findings=findings,
        counts={name: outcome.counts[name] for name in _COUNTED},
    )


def together(summaries: Sequence[Summary]) -> Summary:
    """Several runs, each on a stack of its own, as one; the seed is the first's."""

    def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for each in counts:
            total.update(each)
        return dict(total)

    return Summary(
        seed=summaries[0].seed,
        stack=summaries[0].stack,
        seconds=sum(s.seconds for s in summaries),
        faults=added(s.faults for s in summaries),
        n_unplayed=sum(s.n_unplayed for s in summaries),
        n_records=sum(s.n_records for s in summaries),
        n_requests=sum(s.n_requests for s in summaries),
        n_streams=sum(s.n_streams for s in summaries),
        n_answers=sum(s.n_answers for s in summaries),
        n_wire=sum(s.n_wire for s in summaries),
        n_repeats=sum(s.n_repeats for s in summaries),
        named_errors=added(s.named_errors for s in summaries),
        excuses=sorted({excuse for s in summaries for excuse in s.excuses}),
        found=added(s.found for s in summaries),
        findings=[finding for s in summaries for finding in s.findings],
        counts=added(s.counts for s in summaries),
    )


def _n_repeats(history: History) -> int:
    """Batches that lie in a results topic more than once."""
    keys = {(w.network, w.partition, w.era, w.number, w.window, w.digest) for w in history.wire}
    return len(history.wire) - len(keys)


def _reason(error: str) -> str:
    """The name of an error: the last word that is followed by a colon and begins with a capital."""
    names = [part.split()[-1] for part in error.split(":")[:-1] if part.split()]
    named = [name for name in names if name[:1].isupper() and name.isalpha() and name != "Stream"]
    return named[0] if named else error[:60]


def _combination(excuse: tuple[Injected, ...] | None) -> str:
    return "none" if excuse is None else " with ".join(sorted(f.kind for f in excuse))


def as_text(summary: Summary) -> str:
    """The summary as a Markdown table or two."""
    rows = [
        ("faults injected", summary.n_faults),
        ("faults that another one was in the way of", summary.n_unplayed),
        ("input records", summary.n_records),
        ("requests", summary.n_requests),
        ("streams", summary.n_streams),
        ("emissions at the sink", summary.n_answers),
        ("batches in the results topics", summary.n_wire),
        ("of them repeats, dropped before the sink", summary.n_repeats),
        *((f"**{name}**", n) for name, n in summary.found.items()),
        ("streams ended with a named error", sum(summary.named_errors.values())),
        *((f"- {name}", n) for name, n in sorted(summary.named_errors.items())),
        *((f"- when {name}", "") for name in summary.excuses),
        *((f"`{name}`", n) for name, n in summary.counts.items()),
    ]
    head = f"{summary.stack}, seed {summary.seed}, {summary.seconds:.0f} s"
    lines = [f"| {head} | |", "|---|---:|", *(f"| {what} | {n} |" for what, n in rows)]
    kinds = ["", "| fault | times |", "|---|---:|"]
    kinds += [f"| {kind} | {n} |" for kind, n in sorted(summary.faults.items())]
    return "\n".join([*lines, *kinds])
