"""What Apache Kafka 4 reads: `server.properties` of each broker, and the commands that run it.

Every broker has three listeners on loopback: CLIENT, as the security asked for demands; INTERNAL
and CONTROLLER, plain, for the brokers among themselves and for whoever watches over them.

The times in `_FAILOVER` decide how long a partition stands still when its leader dies without a
word: the controller takes it for dead after `broker.session.timeout.ms` (9 s by default), and a
dead controller is replaced after the quorum's own two. docs/adr/0017 has the measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

__all__ = ["BrokerPorts", "ClusterPlan", "KafkaSecurity", "Mechanism", "Tls"]

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_FAILOVER: Final = {
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.election.backoff.max.ms": "300",
}
# A broker's share of one small machine; the cleaner's buffer alone would be 128 MiB.
_SMALL: Final = {
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "group.initial.rebalance.delay.ms": "0",
    "controlled.shutdown.max.retries": "1",
}
_LOGIN: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the server: its certificate chain, its PKCS #8 key, and whom it trusts.

    With `ask_client` a client must show a certificate that `ca` has signed.
    """

    certificate: Path
    key: Path
    ca: Path
    ask_client: bool = False


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Of the CLIENT listener: TLS if given, SASL if a mechanism is given, with these passwords."""

    tls: Tls | None = None
    mechanism: Mechanism | None = None
    users: Mapping[str, str] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """Kafka's name: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        transport = "PLAINTEXT" if self.tls is None else "SSL"
        return transport if self.mechanism is None else f"SASL_{transport}"


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Loopback ports of one broker."""

    client: int
    internal: int
    controller: int


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster of brokers numbered from 1, each of them a controller too.

    `advertised` are the ports that clients are told to dial, one per broker, when these are not
    their own (a proxy's). `properties` come last and replace what is written here.
    """

    directory: Path
    cluster_id: str
    ports: Sequence[BrokerPorts]
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    advertised: Sequence[int] = ()
    auto_create: bool = False
    heap_mb: int = 512
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT,...` of all brokers, as clients are told to dial them."""
        ports = self.advertised or [each.client for each in self.ports]
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    def home(self, number: int) -> Path:
        """The folder of one broker."""
        return self.directory / f"broker-{number}"

    def config_file(self, number: int) -> Path:
        """Its `server.properties`."""
        return self.home(number) / "server.properties"

    def log_file(self, number: int) -> Path:
        """What it writes to standard output."""
        return self.home(number) / "broker.log"

    def keystore_file(self, number: int) -> Path:
        """The server's key and certificate chain in one PEM file, as Kafka wants them."""
        return self.home(number) / "keystore.pem"

    def server_properties(self, number: int) -> str:
        """The text of its `server.properties`."""
        copies = min(3, len(self.ports))
        in_sync = max(1, copies - 1)
        values = {
            **self._addresses(number),
            "log.dirs": str(self.home(number) / "data"),
            "auto.create.topics.enable": str(self.auto_create).lower(),
            "num.partitions": "4",
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(in_sync),
            "unclean.leader.election.enable": "false",
            **_FAILOVER,
            **_SMALL,
            **_secured(self.security, self.keystore_file(number)),
            **self.properties,
        }
        return "".join(f"{name}={_escaped(value)}\n" for name, value in values.items())

    def format_command(self, java: str, jars: Path, number: int) -> list[str]:
        """The command that writes the broker's empty data folder."""
        config = str(self.config_file(number))
        users = [
            argument
            for name, password in self._scram_users().items()
            for argument in (
                "--add-scram", f"{self.security.mechanism}=[name={name},password={password}]",
            )
        ]  # fmt: skip
        return [
            *(java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"),
            *("kafka.tools.StorageTool", "format", f"--cluster-id={self.cluster_id}"),
            *("--config", config),
            *users,
        ]

    def run_command(self, java: str, jars: Path, logging: Path, number: int) -> list[str]:
        """The command that runs the broker; `logging` is its log4j2 configuration."""
        return [
            *(java, f"-Xmx{self.heap_mb}m", f"-Xms{self.heap_mb // 4}m", "-XX:+UseSerialGC"),
            "-XX:TieredStopAtLevel=1",  # it starts with half of the processor time
            f"-Dlog4j2.configurationFile={logging}",
            *("-cp", f"{jars}/*", "kafka.Kafka", str(self.config_file(number))),
        ]

    def _addresses(self, number: int) -> dict[str, str]:
        own = self.ports[number - 1]
        client = f"CLIENT://127.0.0.1:{own.client}"
        told = f"CLIENT://{self.bootstrap.split(',')[number - 1]}"
        internal = f"INTERNAL://127.0.0.1:{own.internal}"
        controller = f"CONTROLLER://127.0.0.1:{own.controller}"
        voters = (f"{n}@127.0.0.1:{p.controller}" for n, p in enumerate(self.ports, 1))
        protocols = {
            "CLIENT": self.security.protocol, "INTERNAL": "PLAINTEXT", "CONTROLLER": "PLAINTEXT",
        }  # fmt: skip
        return {
            "process.roles": "broker,controller",
            "node.id": str(number),
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"{client},{internal},{controller}",
            "advertised.listeners": f"{told},{internal}",
            "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
        }

    def _scram_users(self) -> Mapping[str, str]:
        return {} if self.security.mechanism in (None, "PLAIN") else self.security.users


def _secured(security: KafkaSecurity, keystore: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    listener = "listener.name.client"
    if security.tls is not None:
        found |= {
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(keystore),
            f"{listener}.ssl.truststore.type": "PEM",
            f"{listener}.ssl.truststore.location": str(security.tls.ca),
            f"{listener}.ssl.client.auth": "required" if security.tls.ask_client else "none",
        }
    if security.mechanism is not None:
        kind = security.mechanism
        login = [_LOGIN[kind], "required"]
        if kind == "PLAIN":
            login += [f"user_{n}={_quoted(p)}" for n, p in security.users.items()]
        found |= {
            f"{listener}.sasl.enabled.mechanisms": kind,
            f"{listener}.{kind.lower()}.sasl.jaas.config": " ".join(login) + ";",
        }
    return found


def _quoted(text: str) -> str:
    """A string of a JAAS configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(value: str) -> str:
    """A value of a Java properties file."""
    return value.replace("\\", "\\\\")
