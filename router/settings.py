"""What an operator of the system may set, by environment variable `SPIKEROUTER_<NAME>`.

Every process reads the same settings; `environment` writes them for a child process. `None` means
unbounded (in an environment variable: `none`). Defaults suit one machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from topologies.errors import SpikeRouterError
from topologies.profiles import Profile, find_profile

__all__ = [
    "EMBEDDED_PARTITIONS",
    "EMBEDDED_RETENTION_BYTES",
    "Backend",
    "Settings",
    "SettingsError",
]

# The embedded broker keeps this much of each partition and gives each topic this many.
EMBEDDED_RETENTION_BYTES = 5 * 1024 * 1024
EMBEDDED_PARTITIONS = 4
_EMBEDDED_FETCH_MAX_WAIT_MS = 2
_MIB = 1024 * 1024
_DAY_MS = 24 * 60 * 60 * 1000

Backend: TypeAlias = Literal["numpy", "numba", "torch"]


class SettingsError(SpikeRouterError, ValueError):
    """A setting has a value that is not legal; the message names it and what is legal."""


class Settings(BaseSettings):
    """All settings; immutable. Read with `Settings.load()`, which raises `SettingsError`."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="SPIKEROUTER_", frozen=True, extra="forbid", env_parse_none_str="none"
    )

    kafka: str = Field(
        default="127.0.0.1:9092",
        pattern=r"^[^\s:,]+:\d+(,[^\s:,]+:\d+)*$",
        description="Kafka bootstrap servers: HOST:PORT, several separated by commas.",
    )
    redis: str = Field(
        default="redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        description=(
            "URL of the Redis or Valkey server that keeps leases and checkpoints; of a cluster, "
            "several nodes may be named: redis://HOST:PORT,HOST:PORT/0."
        ),
    )
    redis_may_evict: bool = Field(
        default=False,
        description=(
            "Whether a Redis will do that drops keys when its memory is full: streams whose state "
            "it drops end by name."
        ),
    )
    redis_may_forget: bool = Field(
        default=False,
        description=(
            "Whether a Redis will do that keeps no log on disk (appendonly no): what it held is "
            "gone with its process."
        ),
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How Kafka is spoken to: SSL encrypts, SASL asks for a user's name.",
    )
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="How the user is proven to Kafka, with SASL."
    )
    kafka_username: str = Field(default="", description="The user's name, with SASL.")
    kafka_password: SecretStr = Field(
        default=SecretStr(""), description="The user's password, with SASL."
    )
    kafka_ca: Path | None = Field(
        default=None,
        description="PEM file of who has signed Kafka's certificate; none: the system's own list.",
    )
    kafka_certificate: Path | None = Field(
        default=None, description="PEM file of this client's certificate, if Kafka asks for one."
    )
    kafka_key: Path | None = Field(default=None, description="PEM file of that certificate's key.")
    redis_username: str = Field(
        default="", description="Redis user; empty: the default one, or that of the URL."
    )
    redis_password: SecretStr = Field(
        default=SecretStr(""), description="Redis password; empty: none, or that of the URL."
    )
    redis_ca: Path | None = Field(
        default=None,
        description=(
            "PEM file of who has signed the certificate of a rediss:// server; none: the system's "
            "own list."
        ),
    )
    redis_certificate: Path | None = Field(
        default=None, description="PEM file of this client's certificate, if Redis asks for one."
    )
    redis_key: Path | None = Field(default=None, description="PEM file of that certificate's key.")
    replication: int | None = Field(
        default=None,
        ge=1,
        le=32_767,
        description="Copies of each record on a real Kafka; none: three, or one on each broker "
        "that is up when the topic is made, if there are fewer.",
    )
    min_insync: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Copies that must be written before a record is acknowledged; none: all but one, at "
            "least one."
        ),
    )
    partitions: int = Field(
        default=4,
        ge=1,
        le=10_000,
        description="Partitions of every topic, the unit of data parallelism; fixed within an era.",
    )
    fetch_max_wait_ms: int = Field(
        default=20,
        ge=0,
        description=(
            "Longest wait of a fetch with nothing to read, in ms. A real broker answers as soon as "
            "there is data, but takes no other request of that connection meanwhile: a task that "
            "is claimed waits so long. The embedded one answers only when the wait is over: there "
            "it is 2."
        ),
    )
    fetch_max_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024 * 1024,
        description="Most bytes of one partition in one fetch reply.",
    )
    retention_bytes: int | None = Field(
        default=256 * _MIB,
        ge=_MIB,
        description=(
            "Bytes of a partition that the broker keeps at least; none if unbounded. Topics on a "
            "real Kafka are made so; the embedded broker keeps 5 MiB whatever is said here."
        ),
    )
    retention_ms: int | None = Field(
        default=7 * _DAY_MS,
        ge=60_000,
        description="Time in ms that a real Kafka keeps a record; none if unbounded.",
    )
    max_record_bytes: int = Field(
        default=900_000,
        ge=1_000,
        description="Largest record sent; frames are split there.",
    )
    unconfirmed_bytes: int = Field(
        default=1_000_000,
        ge=1,
        description=(
            "Bytes per partition that ingest may have in flight beyond what results have confirmed "
            "(B of protocol rule 19)."
        ),
    )
    unconfirmed_windows: int = Field(
        default=64,
        ge=1,
        description="Windows per stream that ingest may cut beyond what results have confirmed.",
    )
    uncommitted_bytes: int = Field(
        default=1_000_000,
        ge=1,
        description=(
            "Input bytes per topic and partition that a task may apply beyond its committed "
            "position before it waits for a checkpoint (U of protocol rule 19)."
        ),
    )
    checkpoint_interval_ms: int = Field(
        default=100, ge=1, description="Time between two checkpoints of a busy task, in ms."
    )
    checkpoint_bytes: int = Field(
        default=400_000,
        ge=1,
        description="Input bytes after which a checkpoint is taken before its interval is over.",
    )
    lease_ttl_ms: int = Field(
        default=900,
        ge=50,
        description="Time in ms after which the tasks of a silent worker may be claimed.",
    )
    store_timeout_s: float = Field(
        default=2.0, gt=0, description="Deadline of one call to the store, in seconds."
    )
    send_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description=(
            "Deadline of one record sent to Kafka, in seconds; a broker that does not answer is "
            "given up after half of it."
        ),
    )
    progress_deadline_s: float = Field(
        default=30.0,
        gt=0,
        description="Time in which a cut window must be confirmed, else its stream is ended.",
    )
    max_streams: int | None = Field(
        default=65_536,
        ge=1,
        description=(
            "Streams of an input that may be open at once, per partition; none if unbounded. It is"
            " written into the input by deploy and remove: deploy again to change it."
        ),
    )
    stream_idle_s: float | None = Field(
        default=3600.0,
        gt=0,
        description=(
            "Time in seconds after which an open stream that says nothing is ended; none: never."
        ),
    )
    request_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest time the gateway waits for a result, in seconds."
    )
    results_keep_s: float = Field(
        default=60.0,
        ge=0,
        description="Time the gateway keeps a result for clients that come back, in seconds.",
    )
    max_body_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1_000, description="Largest body of an HTTP request."
    )
    max_bodies_bytes: int = Field(
        default=32 * _MIB,
        ge=1_000,
        description=(
            "Bytes of HTTP bodies that a gateway reads and parses at once; who sends more gets 429."
        ),
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Time in which the body of an HTTP request must have come, in seconds.",
    )
    max_samples: int = Field(
        default=1024,
        ge=1,
        description="Samples that a gateway has in flight at once; who sends more gets 429.",
    )
    gateway_host: str = Field(
        default="127.0.0.1", description="Address the gateway listens on; loopback by default."
    )
    gateway_port: int = Field(
        default=8000,
        ge=0,
        le=65_535,
        description="Port the gateway listens on; 0 takes a free one.",
    )
    worker_name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="Name of this worker, unique among live ones; empty: host name and process id.",
    )
    backend: Backend = Field(default="numpy", description="Backend on which this worker computes.")
    kinds: Annotated[tuple[Literal["ingest", "synaptic", "readout"], ...], NoDecode] = Field(
        default=("ingest", "synaptic", "readout"),
        description="Kinds of operator this worker hosts, separated by commas.",
    )
    capacity: int | None = Field(
        default=None,
        ge=1,
        description="Neurons plus synapses this worker can hold over all tasks; none if unbounded.",
    )
    artifacts: str = Field(
        default="",
        description=(
            "Where compiled operators are kept: a directory, or a URL that fsspec knows, such as"
            " s3://bucket/prefix; the same for all processes. Empty: in Redis."
        ),
    )
    artifact_cache: Path | None = Field(
        default=None,
        description="Directory in which workers of this machine keep fetched operators; or none.",
    )
    profile: str = Field(
        default="",
        description=(
            "Hardware node that this worker stands for (docs/hardware.md): it hosts synapse groups"
            " that fit it, and neither ingest nor readouts; empty: no limits."
        ),
    )
    device: str = Field(
        default="",
        pattern=r"^([\w.]+:\w+)?$",
        description=(
            "MODULE:FACTORY of the adapter through which this worker computes synapse groups on"
            " hardware nodes, one node per task (docs/hardware.md); empty: the backend."
        ),
    )
    max_tasks: int | None = Field(
        default=None,
        ge=1,
        description="Most tasks at once: the nodes, or cores, behind this worker.",
    )
    warm_bytes: int | None = Field(
        default=256 * _MIB,
        ge=0,
        description=(
            "Bytes of operators that this worker keeps ready to run, though others run them: a"
            " spare that is warm takes over faster; 0 switches it off, none is unbounded."
        ),
    )
    max_batch: int = Field(
        default=256, ge=1, description="Most streams stepped together in one task."
    )
    compute_threads: int = Field(default=1, ge=1, description="Threads of a worker's numeric work.")
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address on which a worker tells its metrics; loopback by default.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port on which a worker tells its metrics; none: it does not; 0: any.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _split_kinds(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _security_is_complete(self) -> Self:
        if self.kafka_security.startswith("SASL") and not self.kafka_username:
            raise ValueError(f"kafka_security {self.kafka_security} needs a kafka_username")
        for server in ("kafka", "redis"):
            certificate, key = (getattr(self, f"{server}_{n}") for n in ("certificate", "key"))
            if (certificate is None) != (key is None):
                raise ValueError(
                    f"{server}_certificate and {server}_key belong together: give both"
                )
        return self

    @field_validator("profile")
    @classmethod
    def _profile_is_known(cls, value: str) -> str:
        return find_profile(value).name if value else value

    @model_validator(mode="after")
    def _copies_fit(self) -> Self:
        copies, in_sync = self.replication, self.min_insync
        if copies is not None and in_sync is not None and in_sync > copies:
            raise ValueError(f"min_insync {in_sync} is more than replication {copies}")
        return self

    @model_validator(mode="after")
    def _limits_fit_retention(self) -> Self:
        """Protocol rule 19: 2 * (U + B) stays below what the broker retains."""
        in_flight = 2 * (self.uncommitted_bytes + self.unconfirmed_bytes)
        if self.retention_bytes is not None and in_flight >= self.retention_bytes:
            raise ValueError(
                f"2 * (uncommitted_bytes {self.uncommitted_bytes} + unconfirmed_bytes "
                f"{self.unconfirmed_bytes}) must stay below retention_bytes "
                f"{self.retention_bytes}, else unread input can be lost"
            )
        return self

    @property
    def node(self) -> Profile | None:
        """The hardware node that a worker stands for; None: one without limits."""
        return find_profile(self.profile) if self.profile else None

    @property
    def hosted_kinds(self) -> tuple[str, ...]:
        """What a worker hosts: a hardware node has no place for ingest and readouts."""
        return self.kinds if self.node is None else tuple(k for k in self.kinds if k == "synaptic")

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Settings from the environment, `overrides` first. Raises `SettingsError`."""
        values: dict[str, Any] = dict(overrides)
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from error

    def on_embedded(self, kafka: str) -> Self:
        """These settings for the embedded broker at `kafka`: short polls, small retention.

        Raises `SettingsError` when they ask for more partitions than that broker has.
        """
        if self.partitions > EMBEDDED_PARTITIONS:
            raise SettingsError(
                f"partitions is {self.partitions}; the embedded broker has {EMBEDDED_PARTITIONS} "
                "partitions per topic: ask for at most so many, or use a real one (--kafka)."
            )
        return self.changed(
            kafka=kafka,
            fetch_max_wait_ms=_EMBEDDED_FETCH_MAX_WAIT_MS,
            retention_bytes=EMBEDDED_RETENTION_BYTES,
        )

    def changed(self, **values: object) -> Self:
        """A copy with some values changed, and checked. Raises `SettingsError`."""
        return self.load(**{**self.model_dump(), **values})

    def environment(self) -> Mapping[str, str]:
        """The variables that make a child process read exactly these settings."""
        return {
            f"SPIKEROUTER_{name.upper()}": _as_text(value)
            for name, value in self.model_dump().items()
        }


def _as_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _sentence(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(map(str, fault['loc']))} = {fault['input']!r}: {fault['msg']}"
        if fault["loc"]
        else fault["msg"]
        for fault in error.errors()
    ]
    return "A setting is not legal: " + "; ".join(faults) + "."
