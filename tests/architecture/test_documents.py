"""The documents agree with the code: examples decode, names exist, links lead somewhere."""

import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgpack
import pytest

from router.records import RecordError, parse_line, parse_record

_ROOT: Final = Path(__file__).parents[2]
_DOCS: Final = _ROOT / "docs"
_GOLDEN: Final = _ROOT / "tests" / "golden" / "wire"
_WIRE: Final = (_DOCS / "wire-format.md").read_text()
_PAGES: Final = sorted([*_ROOT.glob("*.md"), *_DOCS.rglob("*.md")])
_CODE: Final = ("topologies", "router", "workers", "loadtest", "tests")
_RULES: Final = range(1, 36)


def _fences(text: str, info: str) -> list[tuple[str, str]]:
    """What stands behind `info` in the first line of each fenced block, and its content."""
    return re.findall(rf"^```{info}(?: ([^\n]*))?\n(.*?)^```$", text, re.M | re.S)


def _vector(name: str) -> bytes:
    """That of the newest version which has one."""
    newest = max(_GOLDEN.glob(f"v*/{name}.json"))
    return bytes.fromhex(json.loads(newest.read_text())["bytes"])


def _shown_vectors() -> dict[str, bytes]:
    """Vectors of the document: fenced blocks (comments behind three spaces) and rows of tables."""
    shown = {
        name: bytes.fromhex("".join(line.partition("   ")[0] for line in block.splitlines()))
        for name, block in _fences(_WIRE, "golden")
    }
    rows = re.findall(r"^\| `([a-z]+/[\w-]+)` \| `([0-9a-f]+)` \|", _WIRE, re.M)
    return shown | {name: bytes.fromhex(data) for name, data in rows}


def test_bytes_in_the_wire_format_are_those_of_the_golden_vectors() -> None:
    shown = _shown_vectors()
    assert shown == {name: _vector(name) for name in shown}


def test_the_wire_format_names_every_golden_vector() -> None:
    vectors = {
        str(p.relative_to(version).with_suffix(""))
        for version in _GOLDEN.glob("v*")
        for p in version.rglob("*.json")
    }
    assert {name for name in vectors if f"`{name}`" not in _WIRE} <= set(_shown_vectors())


def test_records_of_the_wire_format_are_legal() -> None:
    ((_, lines),) = _fences(_WIRE, "json-lines")
    names = [parse_line(line.encode(), "unnamed").name for line in lines.splitlines()]
    assert names == ["cam-1", "cam-1", "cam-1", "image-17"]


def test_lines_of_the_wire_format_are_json() -> None:
    ((_, lines),) = _fences(_WIRE, "json")
    shown = [json.loads(line) for line in lines.splitlines()]
    assert {"partition", "offset"} <= set.intersection(*map(set, shown))


@pytest.mark.parametrize("kind", ["data", "era", "route", "kill"])
def test_every_field_of_a_record_is_described(kind: str) -> None:
    with pytest.raises(RecordError) as refused:
        parse_record(b"s", b"\x83\xa1v\x01\xa1k" + msgpack.packb(kind) + b"\xa1?\x00", 0, 0)
    fields = str(refused.value).partition("legal are ")[2].rstrip(".").split(", ")
    assert len(fields) >= 1
    assert [field for field in fields if f"`{field}`" not in _WIRE] == []


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    sources = re.findall(r'<img[^>]* src="([^":]+)"', page.read_text())
    missing = [link for link in (*targets, *sources) if not (page.parent / link).exists()]
    assert missing == []


def test_readme_leads_to_every_document() -> None:
    readme = (_ROOT / "README.md").read_text()
    pages = [p for p in _PAGES if p.parent == _DOCS] + [_ROOT / "CHANGELOG.md"]
    names = [str(page.relative_to(_ROOT)) for page in pages]
    assert [name for name in names if f"]({name})" not in readme] == []


def test_commands_of_the_readme_exist() -> None:
    readme = (_ROOT / "README.md").read_text()
    named = set(re.findall(r"spikerouter ([a-z]+)", readme))
    shown = subprocess.run(
        [sys.executable, "-m", "router.cli", "--help"],
        capture_output=True, text=True, timeout=100, check=True,
    ).stdout  # fmt: skip
    assert {"up", "status", "compile", "publish", "consume"} <= named
    assert {name for name in named if f" {name} " not in shown} == set()


def test_tests_that_a_document_names_exist() -> None:
    text = "".join(page.read_text() for page in _PAGES)
    named = set(re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text))
    assert any(function for _, function in named)
    for path, function in sorted(named):
        assert (_ROOT / path).exists(), path
        if function:
            assert f"def {function}(" in (_ROOT / path).read_text(), f"{path}::{function}"


def _spoken() -> Iterator[str]:
    """Comments and texts (docstrings among them) of all sources, and comments of the scripts."""
    for package in _CODE:
        for path in (_ROOT / package).rglob("*.py"):
            if path == Path(__file__):
                continue
            for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    yield token.string
        for path in (_ROOT / package).rglob("*.lua"):
            yield from re.findall(r"--.*", path.read_text())


def _pointed_at() -> set[int]:
    """Numbers that stand in brackets in comments, or behind the protocol's name."""
    run = r"(\d+(?:(?:, | and | to )\d+)*)"
    pattern = rf"\({run}\)|(?:protocol|PROTOCOL)(?: rules?)? {run}"
    found: set[int] = set()
    for text in _spoken():
        for groups in re.findall(pattern, text):
            found.update(int(number) for number in re.findall(r"\d+", " ".join(groups)))
    return found


def test_the_protocol_has_every_rule_under_its_number() -> None:
    text = (_DOCS / "protocol.md").read_text()
    assert [int(number) for number in re.findall(r"^(\d+)\. ", text, re.M)] == list(_RULES)


def test_every_rule_of_the_protocol_is_pointed_at_where_it_is_kept() -> None:
    assert sorted(set(_RULES) - _pointed_at()) == []
