"""The scripts as they are shipped."""

import hashlib
import re
from importlib import resources

import pytest

from router.store.lua import script

SCRIPTS = resources.files("router.store") / "scripts"
NAMES = sorted(
    path.name.removesuffix(".lua")
    for path in SCRIPTS.iterdir()
    if path.name.endswith(".lua") and path.name != "common.lua"
)


def test_hash_is_that_of_the_text() -> None:
    claim = script("claim")
    assert claim.sha == hashlib.sha1(claim.text.encode()).hexdigest()
    assert script("claim") is claim


def test_name_of_no_script_is_refused() -> None:
    with pytest.raises(FileNotFoundError):
        script("nothing")


@pytest.mark.parametrize("name", NAMES)
def test_script_says_first_what_it_does_and_what_it_answers(name: str) -> None:
    text = (SCRIPTS / f"{name}.lua").read_text("utf-8")
    header = re.match(r"(-- .*\n)+", text)
    assert header is not None
    assert header[0].startswith(f"-- {name}: ")
    assert "Reply: " in header[0]


@pytest.mark.parametrize("name", NAMES)
def test_script_names_only_keys_below_its_prefix(name: str) -> None:
    """Blob keys come as arguments, built with the same prefix; nothing else is spelled out."""
    assert "snn:" not in script(name).text
