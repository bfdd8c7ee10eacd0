from pathlib import Path

import pytest

from router.apache_config import BrokerPorts, ClusterPlan, KafkaSecurity, Tls

_PORTS = tuple(BrokerPorts(100 + n, 200 + n, 300 + n) for n in range(3))
_TLS = Tls(Path("/c/server.pem"), Path("/c/server.key"), Path("/c/ca.pem"))


def _plan(n_brokers: int = 3, **options: object) -> ClusterPlan:
    return ClusterPlan(Path("/k"), "-id", _PORTS[:n_brokers], **options)  # type: ignore[arg-type]


def _properties(plan: ClusterPlan, number: int = 1) -> dict[str, str]:
    lines = plan.server_properties(number).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_every_broker_knows_all_controllers_and_its_own_listeners() -> None:
    found = _properties(_plan(), 2)
    assert found["node.id"] == "2"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:300,2@127.0.0.1:301,3@127.0.0.1:302"
    assert found["advertised.listeners"] == "CLIENT://127.0.0.1:101,INTERNAL://127.0.0.1:201"
    assert found["log.dirs"] == "/k/broker-2/data"


def test_clients_are_told_to_dial_a_proxy_while_brokers_dial_each_other() -> None:
    plan = _plan(advertised=(7, 8, 9))
    found = _properties(plan, 2)
    assert plan.bootstrap == "127.0.0.1:7,127.0.0.1:8,127.0.0.1:9"
    assert found["advertised.listeners"] == "CLIENT://127.0.0.1:8,INTERNAL://127.0.0.1:201"
    assert found["listeners"].startswith("CLIENT://127.0.0.1:101,")


@pytest.mark.parametrize(("n_brokers", "copies", "in_sync"), [(1, "1", "1"), (3, "3", "2")])
def test_a_topic_survives_the_loss_of_one_broker_where_there_are_three(
    n_brokers: int, copies: str, in_sync: str
) -> None:
    found = _properties(_plan(n_brokers))
    assert found["default.replication.factor"] == copies
    assert found["min.insync.replicas"] == in_sync
    assert found["unclean.leader.election.enable"] == "false"


def test_a_dead_leader_is_noticed_sooner_than_by_default() -> None:
    found = _properties(_plan())
    assert int(found["broker.session.timeout.ms"]) < 9000
    beats = int(found["broker.session.timeout.ms"]) / int(found["broker.heartbeat.interval.ms"])
    assert beats >= 4, "a broker that misses two beats on a busy machine is not dead"


def test_given_properties_replace_those_of_the_plan() -> None:
    plan = _plan(properties={"broker.session.timeout.ms": "9000"})
    assert _properties(plan)["broker.session.timeout.ms"] == "9000"


def test_only_the_clients_listener_is_secured() -> None:
    security = KafkaSecurity(_TLS, "SCRAM-SHA-512", {"alice": "secret"})
    found = _properties(_plan(security=security))
    assert security.protocol == "SASL_SSL"
    assert found["listener.security.protocol.map"] == (
        "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
    )
    assert found["listener.name.client.ssl.keystore.location"] == "/k/broker-1/keystore.pem"
    assert found["listener.name.client.ssl.client.auth"] == "none"


def test_a_scram_password_is_stored_at_formatting_and_stands_in_no_configuration() -> None:
    plan = _plan(security=KafkaSecurity(None, "SCRAM-SHA-256", {"alice": "se cret"}))
    assert "SCRAM-SHA-256=[name=alice,password=se cret]" in plan.format_command("j", Path("/l"), 1)
    assert "se cret" not in plan.server_properties(1)


def test_a_plain_password_with_quotes_is_written_so_that_java_reads_it_back() -> None:
    plan = _plan(security=KafkaSecurity(None, "PLAIN", {"alice": 'a"b\\c'}))
    config = _properties(plan)["listener.name.client.plain.sasl.jaas.config"]
    assert config.endswith(r'user_alice="a\\"b\\\\c";')
    assert not any("alice" in argument for argument in plan.format_command("j", Path("/l"), 1))


def test_a_cluster_id_that_begins_with_a_dash_is_no_option() -> None:
    assert "--cluster-id=-id" in _plan().format_command("java", Path("/jars"), 1)


def test_the_heap_is_the_one_asked_for() -> None:
    command = _plan(heap_mb=256).run_command("java", Path("/jars"), Path("/log4j2"), 1)
    assert "-Xmx256m" in command
    assert "-Dlog4j2.configurationFile=/log4j2" in command
