from loadtest.sharing import networks_apart, networks_shared
from topologies.sharing import share


def test_heads_share_all_but_themselves() -> None:
    total = share(networks_shared(4)).total
    assert total.n_operators - total.distinct["exact"] == 3 * (total.n_operators // 4 - 1)
    assert total.n_nodes == total.distinct["exact"]


def test_networks_apart_share_nothing_but_have_the_same_sizes() -> None:
    sharing = share(networks_apart(3))
    assert sharing.total.distinct["exact"] == sharing.total.n_operators
    assert sharing.total.distinct["signature"] == sharing.networks[0].n_operators
