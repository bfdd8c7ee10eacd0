"""What the tests on real processes start from."""

from collections.abc import AsyncIterator

import pytest

from loadtest.demo import load_digits
from loadtest.faults.contents import Contents, make_contents
from router.settings import Settings
from tests.faults.served import Served, serving
from topologies.loader import load_network


@pytest.fixture(scope="session")
def contents() -> Contents:
    """Networks, inputs and what must come back."""
    return make_contents(load_network("scnn_digits"), load_digits()[0], n_requests=40)


@pytest.fixture
async def served(contents: Contents) -> AsyncIterator[Served]:
    """Two workers, a gateway and one partition, undisturbed yet."""
    settings = Settings.load(partitions=1, log_level="WARNING")
    async with serving(contents, settings, n_workers=2) as running:
        yield running
