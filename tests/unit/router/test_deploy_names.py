"""Networks whose topics Kafka could not tell apart."""

import pytest

from router.deploy import DeployError, _check_beside
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.samples import dense_network


def network(name: str) -> CompiledNetwork:
    return compile_network(dense_network((4, 3), 2, name=name))


@pytest.mark.parametrize("other", ["a_b", "a.b", "a_b.c"])
def test_names_that_differ_only_in_dots_are_not_deployed_together(other: str) -> None:
    twin = other.replace("_", "+").replace(".", "_").replace("+", ".")
    with pytest.raises(DeployError, match="Kafka takes for one"):
        _check_beside(network(twin), [network(other)])


def test_the_same_name_and_other_names_are_deployed_together() -> None:
    _check_beside(network("a_b"), [network("a_b"), network("a-b"), network("a__b")])
