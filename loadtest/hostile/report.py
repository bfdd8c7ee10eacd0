"""A hostile run as tables. Pure."""

from collections import Counter
from typing import Any

from loadtest.hostile.checker import Limits
from loadtest.hostile.runner import Played

__all__ = ["as_json", "as_text"]


def as_text(played: Played, limits: Limits) -> str:
    """Tables in Markdown, and what was found."""
    measured = played.measured
    rows = [
        ("seed", str(played.seed)),
        ("hostile inputs", f"{played.n_inputs:,} in {played.seconds:.0f} s"),
        ("good answers, each compared bit for bit", f"{measured.n_good:,}"),
        ("of them wrong / not answered", f"{measured.n_wrong} / {measured.n_failed}"),
        ("503 or 504 while the store was damaged", f"{measured.n_spoiled}"),
        ("slowest good answer", f"{1000 * measured.longest_good_s:.0f} ms"),
        ("gateway, most memory", f"{measured.resident_mib:.0f} MiB"),
        ("its event loop, held at most", f"{1000 * measured.held_s:.0f} ms"),
        ("deaths of processes", str(measured.n_deaths)),
    ]
    lines = ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), ""]
    lines += ["| door | kind | outcomes |", "|---|---|---|"]
    for (door, kind), outcomes in _by_kind(played).items():
        told = ", ".join(f"{outcome}: {n:,}" for outcome, n in sorted(outcomes.items()))
        lines.append(f"| {door} | {kind} | {told} |")
    found = played.findings(limits)
    lines += ["", f"{played.n_faults + len(found) - len(played.faults)} findings.", *found]
    return "\n".join(lines)


def _by_kind(played: Played) -> dict[tuple[str, str], Counter[str]]:
    kinds: dict[tuple[str, str], Counter[str]] = {}
    for (door, kind, outcome), n in sorted(played.outcomes.items()):
        kinds.setdefault((door, kind), Counter())[outcome] += n
    return kinds


def as_json(played: Played, limits: Limits) -> dict[str, Any]:
    """The same for programs."""
    outcomes = {"/".join(key): n for key, n in sorted(played.outcomes.items())}
    return {
        "seed": played.seed,
        "inputs": played.n_inputs,
        "seconds": played.seconds,
        "outcomes": outcomes,
        "measured": vars(played.measured),
        "findings": played.findings(limits),
    }
