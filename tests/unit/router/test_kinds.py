import sys

import pytest

from router.kinds import extras_of, installed_extras, operator_kind, task_kind, with_extras


@pytest.mark.parametrize(
    ("extras", "written"), [((), "readout"), (("b", "a"), "readout+a+b")], ids=["none", "two"]
)
def test_kind_of_a_task_names_the_operators_kind_and_its_extras(
    extras: tuple[str, ...], written: str
) -> None:
    kind = task_kind("readout", extras)
    assert kind == written
    assert operator_kind(kind) == "readout"
    assert extras_of(kind) == tuple(sorted(extras))


def test_worker_hosts_its_kinds_with_every_set_of_its_extras() -> None:
    assert with_extras(("synaptic", "readout"), ()) == ("synaptic", "readout")
    assert with_extras(("synaptic",), ("brian2",)) == ("synaptic", "synaptic+brian2")
    assert set(with_extras(("readout",), ("b", "a"))) == {
        "readout", "readout+a", "readout+b", "readout+a+b"
    }  # fmt: skip


def test_extra_whose_module_cannot_be_found_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "brian2", None)
    assert installed_extras() == ()


@pytest.mark.brian2
def test_extra_whose_module_is_there_is_installed_and_not_imported() -> None:
    before = set(sys.modules)
    assert installed_extras() == ("brian2",)
    assert "brian2" not in set(sys.modules) - before
