"""YAML that costs more than it looks."""

import pytest
import yaml

from topologies.yaml_text import read_yaml

pytestmark = pytest.mark.timeout(20)

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
)
MERGES = "\n".join(
    ["a0: &a0 {x: 1, y: 2}"]
    + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 40)]
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "unfolds to more than 500,000 values"),
        (MERGES, "unfolds to more than 500,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: [1, {c: *a}]}", "contains itself"),
        ("a: &a {<<: *a}", "contains itself"),
        ("[" * 100_000, "nested deeper than 40"),
        ("- " * 100_000 + "1", "nested deeper than 40"),
        ("{a: " * 100_000, "nested deeper than 40"),
        ("? " * 100_000, "nested deeper than 40"),
        ("a: " + "1:" * 500_000 + "1", "a number has 1000001 characters"),
        ("a: 0x" + "f" * 500_000, "a number has 500002 characters"),
        ("a: " + "9" * 500_000, "a number has 500000 characters"),
        ("a: 1\nb: 2\na: 3", "a stands twice"),
        ("? [1]\n: 2", "unhashable"),
        ("a: *b", "undefined alias"),
        ("a: &a {b: 1}\nc: {<<: *a}", "could not determine a constructor"),
        ("a: !!float x", "not of the kind"),
        ("a: !!int x", "not of the kind"),
        ("a: !!bool x", "not of the kind"),
        ("a: !!timestamp x", "not of the kind"),
        ("a: 2026-02-30", "not of the kind"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!binary x", "base64"),
        ("a: \x00", "special characters"),
        ("--- 1\n--- 2", "expected a single document"),
    ],
)
def test_text_that_is_not_to_be_read_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(yaml.YAMLError, match=sentence):
        read_yaml(text)


def test_aliases_that_stay_small_are_followed() -> None:
    text = "a: &a {tau: 2.0}\nb: [*a, *a]\nc: {d: *a, kind: lif}"
    assert read_yaml(text) == {
        "a": {"tau": 2.0},
        "b": [{"tau": 2.0}, {"tau": 2.0}],
        "c": {"d": {"tau": 2.0}, "kind": "lif"},
    }


def test_damaged_text_is_refused_as_yaml_or_read() -> None:
    import random

    whole = "a: &x {b: [1, 2.5, 'c'], d: 1:20}\ne: *x\n? f\n: |\n  text\ng: !!set {h}\n"
    rng = random.Random(5)
    for _ in range(3000):
        text = list(whole)
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = rng.choice("\t\n !&*[]{}:,#|>'\"-?0x%@`\0é~.<")
        try:
            read_yaml("".join(text))
        except yaml.YAMLError:
            continue
