from loadtest.fairness import neighbours
from topologies.sharing import share

_SIZES = (16, 12, 12, 4)


def test_quiet_and_flooded_share_all_but_ingest_and_head_and_compute_nothing_together() -> None:
    networks = neighbours(_SIZES)
    total = share([networks["quiet"], networks["flooded"]]).total
    assert (total.n_operators, total.distinct["exact"]) == (8, 6)
    assert total.n_nodes == total.n_operators


def test_stranger_is_as_large_and_shares_nothing() -> None:
    networks = neighbours(_SIZES)
    alone = share([networks["quiet"]]).total
    both = share([networks["quiet"], networks["stranger"]]).total
    assert both.distinct["exact"] == both.n_operators
    assert both.per_model.size == 2 * alone.per_model.size
