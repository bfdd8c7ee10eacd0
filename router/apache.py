"""Apache Kafka itself on this machine: one broker or a cluster of them, each a JVM, on loopback.

    async with ApacheKafka(n_brokers=3) as kafka:
        kafka.bootstrap                       # HOST:PORT,HOST:PORT,HOST:PORT
        leader = await kafka.leader("snn.in.digits", 0)
        kafka.kill(leader)                    # SIGKILL; its data stays
        await kafka.start_broker(leader)      # returns when all see it again
        await kafka.wait_in_sync()            # every replica of every topic has caught up

Java 17 or newer and, the first time, Maven are all it needs. Without a `directory` it works in a
temporary one, which is removed at the end.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from router.apache_config import BrokerPorts, ClusterPlan, KafkaSecurity
from router.apache_jars import KAFKA_FILES, find_java, kafka_jars
from router.processes import ServerError, ServerProcess, free_ports, listens, until

__all__ = ["ApacheKafka"]

_START_S: Final = 120.0  # a JVM alone takes 3 s; several on a busy machine take far longer
_STOP_S: Final = 10.0
_ASK_S: Final = 2.0
_STATE: Final = "cluster.json"


class ApacheKafka:
    """A cluster of brokers numbered 1 to `n_brokers`; `stop` and `start` keep its data and ports.

    `ports` are those for clients, one per broker; without them free ones are taken. `advertised`
    are the ports that clients are told to dial instead: those of a proxy. `directory` is kept at
    the end if it is given. `properties` are settings of the brokers beside or instead of those of
    `router.apache_config`. `detached` brokers outlive this process.
    """

    role: ClassVar[str] = "Apache Kafka"

    def __init__(
        self,
        n_brokers: int = 1,
        *,
        directory: Path | None = None,
        ports: Sequence[int] = (),
        advertised: Sequence[int] = (),
        security: KafkaSecurity | None = None,
        auto_create: bool = False,
        heap_mb: int = 512,
        properties: Mapping[str, str] | None = None,
        cache: Path | None = None,
        detached: bool = False,
    ) -> None:
        for given in (ports, advertised):
            if n_brokers < 1 or len(given) not in (0, n_brokers):
                raise ServerError(
                    f"{n_brokers} brokers with {len(given)} ports were asked for: at least one"
                    " broker, and as many ports or none."
                )
        self._own_directory = directory is None
        self._directory = directory
        self._n_brokers = n_brokers
        self._ports = tuple(ports)
        self._options: dict[str, Any] = {
            "security": security or KafkaSecurity(),
            "advertised": tuple(advertised),
            "auto_create": auto_create,
            "heap_mb": heap_mb,
            "properties": dict(properties or {}),
        }
        self._cache = cache
        self._detached = detached
        self._plan: ClusterPlan | None = None
        self._brokers: dict[int, ServerProcess] = {}

    # ---- the cluster --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self, timeout: float = _START_S) -> None:
        """Start all brokers and wait until each of them sees all. Raises `ServerError`."""
        java = find_java()
        jars = await kafka_jars(self._cache)
        if self._plan is None:
            self._plan = self._make_plan()
            await asyncio.gather(
                *(self._format(self._plan, java, jars, number) for number in self.numbers)
            )
            for number in self.numbers:
                command = self._plan.run_command(
                    java, jars, KAFKA_FILES / "log4j2.properties", number
                )
                self._brokers[number] = ServerProcess(
                    command, self._plan.log_file(number), detached=self._detached
                )
        for broker in self._brokers.values():
            broker.start()
        await self.wait_ready(timeout)

    async def stop(self, timeout: float = _STOP_S) -> None:
        """End all brokers, and keep their data. One that does not end in time is killed."""
        await asyncio.gather(*(broker.stop(timeout) for broker in self._brokers.values()))

    async def close(self) -> None:
        """End all brokers, and remove their data unless it lies in a given directory."""
        if not self._own_directory:
            await self.stop()
            return
        for broker in self._brokers.values():  # nothing is kept, so nobody need say goodbye
            broker.kill()
        if self._directory is not None:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        self._plan, self._directory = None, None
        self._brokers.clear()

    @staticmethod
    def remove(directory: Path) -> None:
        """Remove the files of a stopped cluster from its directory, and no others."""
        for home in directory.glob("broker-*"):
            shutil.rmtree(home)
        (directory / _STATE).unlink(missing_ok=True)

    @property
    def numbers(self) -> range:
        """The numbers of the brokers."""
        return range(1, self._n_brokers + 1)

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT,...` for clients."""
        return self._started().bootstrap

    @property
    def alive(self) -> bool:
        """Whether any broker runs."""
        return any(broker.alive for broker in self._brokers.values())

    # ---- one broker ---------------------------------------------------------------------------

    def pid(self, number: int) -> int:
        """Process id of a broker; 0 while it does not run."""
        return self._broker(number).pid

    def address(self, number: int) -> str:
        """`HOST:PORT` of one broker for clients."""
        return f"127.0.0.1:{self._started().ports[number - 1].client}"

    def kill(self, number: int) -> None:
        """SIGKILL a broker; its data stays, as far as it had reached the operating system."""
        self._broker(number).kill()

    def pause(self, number: int) -> None:
        """SIGSTOP a broker: it keeps its connections and answers nobody."""
        self._broker(number).pause()

    def resume(self, number: int) -> None:
        """SIGCONT a paused broker."""
        self._broker(number).resume()

    async def stop_broker(self, number: int, timeout: float = _STOP_S) -> None:
        """End a broker in good order: it gives its leaderships away first."""
        await self._broker(number).stop(timeout)

    async def start_broker(self, number: int, timeout: float = _START_S) -> None:
        """Start a broker with the data it has, and wait until it sees all others that run."""
        self._broker(number).start()
        await self._wait_sees_all(number, timeout)

    # ---- what it says of itself ---------------------------------------------------------------

    async def wait_ready(self, timeout: float = _START_S) -> None:
        """Return when every broker that runs sees all that run."""
        running = [n for n in self.numbers if self._brokers[n].alive] or list(self.numbers)
        await asyncio.gather(*(self._wait_sees_all(number, timeout) for number in running))

    async def wait_in_sync(self, timeout: float = _START_S) -> None:
        """Return when every partition has a leader, and all its replicas are in sync."""
        await until(self._is_in_sync, timeout, "Some replicas of Apache Kafka did not catch up")

    async def leader(self, topic: str, partition: int) -> int:
        """The number of the broker that leads a partition; `ServerError` when there is none."""
        for described in await self.describe([topic]):
            for each in described["partitions"]:
                if each["partition"] == partition and each["leader"] > 0:
                    return int(each["leader"])
        raise ServerError(f"Partition {partition} of topic {topic} has no leader now.")

    async def describe(self, topics: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Kafka's description of topics (None: all) as some running broker has it."""
        number = next((n for n in self.numbers if self._brokers[n].alive), 1)
        async with self._admin(number) as admin:
            described: list[dict[str, Any]] = await admin.describe_topics(topics)
            return described

    # ---- how ----------------------------------------------------------------------------------

    def _make_plan(self) -> ClusterPlan:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="spikerouter-kafka-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        state = self._state(self._directory / _STATE)
        given = self._ports or [client for client, _, _ in state["ports"]]
        ports = tuple(
            BrokerPorts(client, internal, controller)
            for client, (_, internal, controller) in zip(given, state["ports"], strict=True)
        )
        return ClusterPlan(self._directory, state["cluster_id"], ports, **self._options)

    def _state(self, file: Path) -> dict[str, Any]:
        """What the directory remembers of its cluster; written when there is none yet."""
        if not file.is_file():
            state = self._new_state()
            _write_private(file, json.dumps(state))
            return state
        found: dict[str, Any] = json.loads(file.read_text())
        if len(found["ports"]) != self._n_brokers:
            raise ServerError(
                f"{file.parent} holds a cluster of {len(found['ports'])} brokers, and"
                f" {self._n_brokers} are asked for: give another directory or that number."
            )
        return found

    def _new_state(self) -> dict[str, Any]:
        n = self._n_brokers
        free = free_ports(3 * n)
        ports = list(zip(free[:n], free[n : 2 * n], free[2 * n :], strict=True))
        return {"cluster_id": base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22],
                "ports": ports}  # fmt: skip

    async def _format(self, plan: ClusterPlan, java: str, jars: Path, number: int) -> None:
        """Write a broker's configuration, and its data folder when it has none."""
        plan.home(number).mkdir(exist_ok=True)
        _write_private(plan.config_file(number), plan.server_properties(number))
        if (tls := plan.security.tls) is not None:
            keystore = tls.key.read_text() + tls.certificate.read_text()
            _write_private(plan.keystore_file(number), keystore)
        if (plan.home(number) / "data" / "meta.properties").is_file():
            return
        process = await asyncio.create_subprocess_exec(
            *plan.format_command(java, jars, number),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        if process.returncode:
            raise ServerError(
                f"Apache Kafka's folder {plan.home(number)} could not be formatted:\n"
                + told.decode(errors="replace")[-2000:]
            )

    async def _wait_sees_all(self, number: int, timeout: float) -> None:
        broker = self._broker(number)

        async def sees_all() -> bool:
            if not broker.alive:
                raise ServerError(f"Broker {number} ended while it was starting.\n{broker.tail()}")
            if not listens(self._started().ports[number - 1].internal):
                return False
            try:
                async with self._admin(number) as admin:
                    seen = {each["node_id"] for each in (await admin.describe_cluster())["brokers"]}
            except (KafkaError, TimeoutError, OSError):
                return False
            return seen >= {n for n in self.numbers if self._brokers[n].alive}

        await until(sees_all, timeout, f"Broker {number} of Apache Kafka did not become ready")

    async def _is_in_sync(self) -> bool:
        try:
            topics = await self.describe()
        except (KafkaError, TimeoutError, OSError):
            return False
        partitions = [each for topic in topics for each in topic["partitions"]]
        return all(
            each["leader"] > 0 and set(each["isr"]) >= set(each["replicas"]) for each in partitions
        )

    @asynccontextmanager
    async def _admin(self, number: int) -> AsyncIterator[AIOKafkaAdminClient]:
        """A client that knows this broker only, through its plain internal listener."""
        address = f"127.0.0.1:{self._started().ports[number - 1].internal}"
        admin = AIOKafkaAdminClient(
            bootstrap_servers=address, request_timeout_ms=int(_ASK_S * 1000)
        )
        try:  # its own deadlines end it: cancelled while it connects, it would leak a connection
            await admin.start()
            yield admin
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()

    def _broker(self, number: int) -> ServerProcess:
        if number not in self._brokers:
            known = ", ".join(map(str, self._brokers)) or "none, since it is not started"
            raise ServerError(f"There is no broker {number}; there are: {known}.")
        return self._brokers[number]

    def _started(self) -> ClusterPlan:
        if self._plan is None:
            raise ServerError("This Apache Kafka is not started: use it as `async with`.")
        return self._plan


def _write_private(path: Path, text: str) -> None:
    """Passwords and keys are nobody else's business."""
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
