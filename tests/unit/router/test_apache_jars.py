"""Small programs stand in for Java and Maven: what is missing or too old is told in a sentence."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from router.apache_jars import find_java, kafka_jars
from router.processes import ServerError

Program = Callable[[str, str], None]

_MAVEN = """
for argument; do case "$argument" in -DoutputDirectory=*) folder="${argument#*=}";; esac; done
/bin/mkdir "$folder" && : > "$folder/kafka_2.13-4.jar"
echo once >> "${0%/*}/runs"
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes the only programs on PATH: `program("java", "<shell script>")`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "pom.xml").write_text("<project/>")
    return folder


@pytest.mark.usefixtures("program")
def test_a_missing_java_is_named_with_what_to_do() -> None:
    with pytest.raises(ServerError, match=r"needs Java 17 or newer.*--kafka HOST:PORT"):
        find_java()


def test_a_java_that_is_too_old_is_told_with_its_version(program: Program) -> None:
    program("java", "echo 'openjdk version \"11.0.2\" 2019' >&2")
    with pytest.raises(ServerError, match=r"says 'openjdk version \"11"):
        find_java()


def test_a_newer_java_is_taken(program: Program, tmp_path: Path) -> None:
    program("java", "echo 'openjdk version \"21.0.1\" 2023' >&2")
    assert find_java() == str(tmp_path / "bin" / "java")


@pytest.mark.usefixtures("program")
async def test_a_missing_maven_is_named_with_what_to_do(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no `mvn`.*on Debian: maven"):
        await kafka_jars(tmp_path / "cache", files)


async def test_jars_are_fetched_once(program: Program, files: Path, tmp_path: Path) -> None:
    program("mvn", _MAVEN)
    first = await kafka_jars(tmp_path / "cache", files)
    assert [jar.name for jar in first.iterdir()] == ["kafka_2.13-4.jar"]
    assert await kafka_jars(tmp_path / "cache", files) == first
    assert (tmp_path / "bin" / "runs").read_text() == "once\n"


async def test_two_that_fetch_at_once_get_the_same_folder(
    program: Program, files: Path, tmp_path: Path
) -> None:
    program("mvn", _MAVEN)
    one, other = await asyncio.gather(*(kafka_jars(tmp_path / "cache", files) for _ in "ab"))
    assert one == other
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [one.name]


async def test_another_pom_gets_another_folder(
    program: Program, files: Path, tmp_path: Path
) -> None:
    program("mvn", _MAVEN)
    first = await kafka_jars(tmp_path / "cache", files)
    (files / "pom.xml").write_text("<project><!-- newer --></project>")
    assert await kafka_jars(tmp_path / "cache", files) != first


async def test_what_maven_says_is_passed_on_and_nothing_is_left_when_it_fails(
    program: Program, files: Path, tmp_path: Path
) -> None:
    program("mvn", "echo 'no such artifact'; exit 1")
    with pytest.raises(ServerError, match="no such artifact"):
        await kafka_jars(tmp_path / "cache", files)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_folder_without_a_pom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="source tree"):
        await kafka_jars(tmp_path / "cache", tmp_path)
