"""The door of topics knows every topic of a deployment."""

from dataclasses import replace

from loadtest.hostile.records_door import topics_of
from router.topics import DEAD_LETTER, in_topic, out_topic, spikes_topic
from topologies.compiler import compile_network
from topologies.loader import load_network


def test_every_topic_of_a_network_is_hit_that_was_read_without_its_weights() -> None:
    network = compile_network(load_network("scnn_digits"))
    of_spikes = {spikes_topic(operator) for operator in network.operators}
    as_the_store_tells_it = replace(network, operators={})
    assert len(of_spikes) > 1
    assert set(topics_of([as_the_store_tells_it])) == {
        DEAD_LETTER, in_topic(network.input.name), out_topic(network.name), *of_spikes,
    }  # fmt: skip
