"""docs/operations.md names every setting, metric and error there is, and none that there is not."""

import ast
import re
from collections.abc import Callable
from typing import Final

import pytest
from pydantic import SecretStr

from router import loops, topics
from router.cli import COMMANDS_GROUP
from router.gateway import errors
from router.gateway.errors import status_of
from router.settings import Settings
from tests.deployment.deployment import ROOT
from tests.deployment.metric_names import gateway_metrics, worker_metrics

_TEXT: Final = (ROOT / "docs" / "operations.md").read_text()
_ROOT_ERROR: Final = "SpikeRouterError"
_PACKAGES: Final = ("topologies", "router", "workers", "loadtest")


def _section(title: str) -> str:
    """The text of a section, up to the next one of the same depth."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", _TEXT, re.M | re.S)
    assert found is not None, f"docs/operations.md has no section {title!r}"
    return found[1]


def _first_cells(section: str) -> list[str]:
    """What the first column of the section's tables names, in backquotes."""
    rows = (line for line in section.splitlines() if line.startswith("| `"))
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def _setting_row(name: str) -> str:
    field = Settings.model_fields[name]
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    shown = ",".join(value) if isinstance(value, tuple) else value
    default = "none" if value is None else (f"`{shown}`" if shown != "" else "empty")
    return f"| `SPIKEROUTER_{name.upper()}` | {default} | {field.description} |"


def test_every_setting_stands_there_with_its_default_and_meaning() -> None:
    wanted = [_setting_row(name) for name in Settings.model_fields]
    rows = [line for line in _section("Settings").splitlines() if line.startswith("| `")]
    assert rows == wanted, "the table must be:\n" + "\n".join(wanted)


@pytest.mark.parametrize(
    ("title", "told"),
    [("Metrics of a gateway", gateway_metrics), ("Metrics of a worker", worker_metrics)],
)
def test_every_metric_stands_there_once(title: str, told: Callable[[], set[str]]) -> None:
    listed = _first_cells(_section(title))
    plain = {re.sub(r"(?<=_seconds)_(bucket|count|sum)$", "", name) for name in told()}
    assert sorted(listed) == sorted(plain)


def test_a_figure_beside_a_setting_is_its_default() -> None:
    told = re.findall(r"`SPIKEROUTER_(\w+)` \(([\d,]+)\)", _TEXT)
    assert told
    for name, figure in told:
        assert int(figure.replace(",", "")) == Settings.model_fields[name.lower()].default


def test_http_codes_of_errors_are_those_that_the_gateway_gives() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d{3})\b", _section("Runbook"), re.M))
    assert len(told) > 5
    for name, code in told.items():
        assert status_of(_made(getattr(errors, name))) == int(code), name


def _made(kind: type[Exception]) -> Exception:
    """An error of this class, whatever its constructor wants."""
    bare = type(kind.__name__, (kind,), {"__init__": lambda self: None})
    error: Exception = bare()
    return error


def test_other_figures_are_those_of_the_code() -> None:
    assert topics.NAME.fullmatch("a" * 100)
    assert not topics.NAME.fullmatch("a" * 101)
    assert "Use 1 to 100 of" in _TEXT
    assert (loops._MOST_FAILURES, loops._STEADY_S) == (10, 30.0)
    assert "has failed ten times in a row" in _TEXT
    assert "until it has run for half a minute" in _TEXT


def _error_classes() -> set[str]:
    """Every public class of the packages that comes from SpikeRouterError, by name."""
    bases: dict[str, set[str]] = {}
    for package in _PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    names = (ast.unparse(base).rpartition(".")[2] for base in node.bases)
                    bases.setdefault(node.name, set()).update(names)
    found = {_ROOT_ERROR}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return {name for name in found if not name.startswith("_")}


def test_there_is_a_line_of_the_runbook_for_every_error() -> None:
    listed = _first_cells(_section("Runbook"))
    assert sorted(set(listed)) == sorted(listed), "an error stands there twice"
    assert set(listed) == _error_classes()


def _words_of_workers() -> set[str]:
    """Every `Word` of a text `Word: ...` that the code of the workers writes, in a string or a
    formatted one: what a stream ends with, or a record is refused with."""
    texts = {
        node.value
        for path in (ROOT / "workers").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    words = (re.match(r"((?:[A-Z][a-z]+){2,}): ", text) for text in texts)
    return {word[1] for word in words if word is not None}


def test_there_is_a_line_for_every_error_in_results() -> None:
    listed = _first_cells(_section("Errors in results and dead letters"))
    assert sorted(listed) == sorted(_words_of_workers())


@pytest.mark.parametrize("title", ["Errors in results and dead letters", "Runbook"])
def test_every_error_is_told_what_to_do_about(title: str) -> None:
    rows = [line for line in _section(title).splitlines() if line.startswith("| `")]
    assert [row for row in rows if len(row.split(" | ")[-1].rstrip(" |")) < 10] == []


def test_the_commands_that_it_shows_exist() -> None:
    shown = set(re.findall(r"^spikerouter (\w+)", _TEXT, re.M))
    project = (ROOT / "pyproject.toml").read_text()
    commands = project[project.index(COMMANDS_GROUP) :]
    known = {"up", "status", "worker"} | set(re.findall(r'^"?(\w+)', commands, re.M))
    assert shown
    assert shown <= known
