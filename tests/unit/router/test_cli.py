import re
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from router import cli
from router.cli import COMMANDS_GROUP, application, main
from router.settings import Settings

_plain = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"})


def _plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=COMMANDS_GROUP)


def _invoke(arguments: list[str], *plugins: EntryPoint) -> tuple[int, str]:
    result = _plain.invoke(application(arguments, plugins), arguments)
    return result.exit_code, re.sub(r"\s+", " ", result.output)


_MISSING = _plugin("fly", "no_such_package.module:command")
# A function that takes one argument, from a module that is always there.
_CALENDAR = _plugin("leap", "calendar:leapdays")


def test_help_lists_own_commands_and_plugins() -> None:
    code, shown = _invoke(["--help"], _MISSING)
    assert code == 0
    for name in ("up", "status", "worker", "fly"):
        assert name in shown


def test_help_says_why_a_plugin_cannot_be_used() -> None:
    _, shown = _invoke(["--help"], _MISSING)
    assert "No module named 'no_such_package'" in shown


def test_a_plugin_that_cannot_be_loaded_fails_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: [_MISSING])
    with pytest.raises(SystemExit) as ended:
        main(["fly"])
    assert ended.value.code == 1
    assert "Command 'fly' cannot be loaded" in capsys.readouterr().err


def test_a_plugin_that_needs_an_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = _plugin("fly", "no_such_package.module:command [wings]")
    monkeypatch.setattr(cli, "entry_points", lambda group: [plugin])
    with pytest.raises(SystemExit):
        main(["fly"])
    assert "pip install -c constraints.txt -e '.[wings]'" in capsys.readouterr().err
    assert "Needs the extra wings." in _invoke(["--help"], plugin)[1]


def test_only_the_plugin_that_is_run_is_imported() -> None:
    app = application(["leap", "2000"], [_MISSING, _CALENDAR])
    assert {command.name for command in app.registered_commands} == {
        "up",
        "status",
        "worker",
        "leap",
    }


def test_an_own_command_imports_no_plugin() -> None:
    app = application(["status"], [_CALENDAR])
    assert {command.name for command in app.registered_commands} == {"up", "status", "worker"}


def test_a_plugin_cannot_replace_an_own_command() -> None:
    app = application(["--help"], [_plugin("up", "calendar:leapdays")])
    assert [c.name for c in app.registered_commands].count("up") == 1


def test_a_plugin_with_a_dotted_name_is_a_command_of_a_group() -> None:
    plugins = [_plugin("count.leap", "calendar:leapdays"), _plugin("count.fly", "nowhere:no")]
    code, shown = _invoke(["count", "--help"], *plugins)
    assert code == 0
    assert "leap" in shown
    assert "No module named 'nowhere'" in shown


def test_a_group_of_one_command_still_needs_the_name_of_the_command() -> None:
    code, _ = _invoke(["count", "1"], _plugin("count.leap", "calendar:leapdays"))
    assert code == 2


def test_an_unknown_command_is_a_usage_error() -> None:
    code, shown = _invoke(["nonsense"])
    assert code == 2
    assert "No such command" in shown


def test_an_illegal_setting_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["up", "--partitions", "0"])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert "partitions = 0" in told
    assert "Traceback" not in told


def test_status_of_an_unreachable_store_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--redis", "redis://127.0.0.1:1/0"])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert "store" in told
    assert "Traceback" not in told


def test_status_of_an_empty_store_is_not_ready(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--redis", redis_url, "--json"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == (
        '{"ready": false, "workers": [], "tasks": [], "counts": {}, "recoveries": [],'
        ' "places": [], "strays": []}\n'
    )


def test_worker_becomes_the_worker_process_with_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[str, tuple[str, ...], dict[str, str]]] = []
    monkeypatch.setattr(
        "os.execve", lambda path, command, environment: ran.append((path, command, environment))
    )
    with pytest.raises(SystemExit):
        main(["worker", "--name", "w1", "--kinds", "ingest,readout", "--kafka", "h:1"])
    ((path, command, environment),) = ran
    assert command == (path, "-m", "workers", "--name", "w1")
    assert environment["SPIKEROUTER_KINDS"] == "ingest,readout"
    assert environment["SPIKEROUTER_KAFKA"] == "h:1"


def test_what_up_tells_to_export_lets_other_commands_find_the_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = Settings.load(kafka="127.0.0.1:4711", redis="redis://127.0.0.1:4712/0", partitions=2)
    for export in cli._exports(running):
        name, _, value = export.partition("=")
        monkeypatch.setenv(name, value)
    found = Settings.load()
    assert (found.kafka, found.redis) == (running.kafka, running.redis)
    assert found.partitions == 2


def test_up_tells_of_partitions_only_where_they_are_not_the_default() -> None:
    assert len(cli._exports(Settings.load())) == 2
