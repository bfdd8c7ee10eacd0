"""Whether a server may be the store, and why it does not let us in. Pure; sentences for operators.

The store is where leases and checkpoints are. One that drops keys when its memory is full loses the
state of streams that are served just then; one that keeps nothing on disk loses all of it with its
process. Either is refused, unless a setting says that it is meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from router.listeners import Listener

__all__ = ["Demands", "refusal", "store_mismatch", "unfit"]


@dataclass(frozen=True, slots=True)
class Demands:
    """What is asked of a server; what it may do is what the settings allow."""

    may_evict: bool = False
    may_forget: bool = False


def unfit(info: Mapping[str, Any], demands: Demands, where: str) -> str | None:
    """Why the server that says this of itself (INFO) cannot be the store; None when it can.

    INFO and not CONFIG GET: users without dangerous commands may ask for it. The likely mistake:
    to demand that a server without a limit of memory has a policy.
    """
    if info.get("redis_mode") == "sentinel":
        return (
            f"At {where} answers a Redis Sentinel, which keeps no data: name the Redis that it "
            "watches in SPIKEROUTER_REDIS."
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", 0) and policy != "noeviction" and not demands.may_evict:
        return (
            f"The Redis at {where} drops keys when its memory is full (maxmemory-policy {policy}), "
            "and with them the state of streams: set `maxmemory-policy noeviction` there, or allow "
            "it with SPIKEROUTER_REDIS_MAY_EVICT=true."
        )
    if not info.get("aof_enabled", 0) and not demands.may_forget:
        return (
            f"The Redis at {where} keeps no log on disk (appendonly no), so leases and checkpoints "
            "end with its process: set `appendonly yes` there, or allow it with "
            "SPIKEROUTER_REDIS_MAY_FORGET=true."
        )
    return None


# What a server, or TLS, says of whom it does not let in -> the cause and what to do.
_PASSWORD: Final = (
    "it asks for a password: set SPIKEROUTER_REDIS_PASSWORD (and SPIKEROUTER_REDIS_USERNAME)"
)
_NO_TLS: Final = (
    "it speaks no TLS: write redis:// in place of rediss:// in SPIKEROUTER_REDIS, or give the "
    "server a certificate"
)
_REFUSALS: Final = (
    ("NOAUTH", _PASSWORD),
    (
        "WRONGPASS",
        "it knows no such user and password: correct SPIKEROUTER_REDIS_USERNAME and "
        "SPIKEROUTER_REDIS_PASSWORD (those of the URL come first)",
    ),
    (
        "protected mode",
        "it takes clients of its own machine only (protected mode): give it a password, and bind "
        "it to an address that workers reach",
    ),
    (
        "SELECT is not allowed in cluster mode",
        "it is a Redis Cluster, which has database 0 only: end SPIKEROUTER_REDIS with /0",
    ),
    (
        "DB index is out of range",
        "it has no such database: correct the number at the end of SPIKEROUTER_REDIS",
    ),
    (
        "cluster support disabled",
        "it is no Redis Cluster any more: start this program again",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted, or is another host's: name who has signed it in "
        "SPIKEROUTER_REDIS_CA, and the host of the certificate in SPIKEROUTER_REDIS",
    ),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
    ("RECORD_LAYER_FAILURE", _NO_TLS),
)
_NO_RIGHT: Final = ("NOPERM", "ACL failure in script")


def refusal(told: str, where: str) -> str | None:
    """The cause of a refusal that time does not mend, as a sentence; None for any other text."""
    if any(sign in told for sign in _NO_RIGHT):
        return (
            f"The user of the Redis at {where} lacks a right ({told.strip()}): give it those of "
            "docs/operations.md, section Security."
        )
    for sign, what in _REFUSALS:
        if sign.lower() in told.lower():
            return f"The Redis at {where} does not let us in: {what}."
    return None


def store_mismatch(
    found: Listener, where: str, *, tls: bool, certificate: bool = False
) -> str | None:
    """Why what listens there cannot be the Redis that SPIKEROUTER_REDIS means; None if it can.

    `tls` and `certificate` are what the settings have.
    """
    if found == "Kafka":
        return (
            f"At {where} answers a Kafka, not a Redis: correct SPIKEROUTER_REDIS (6379 is Redis' "
            "usual port, 9092 is Kafka's)."
        )
    if found == "HTTP":
        return f"At {where} answers a web server, not a Redis: correct SPIKEROUTER_REDIS."
    if found == "TLS and a certificate" and tls and not certificate:
        return (
            f"The Redis at {where} asks for a certificate of ours: set "
            "SPIKEROUTER_REDIS_CERTIFICATE and SPIKEROUTER_REDIS_KEY."
        )
    if found.startswith("TLS") and not tls:
        return (
            f"What answers at {where} speaks TLS, and SPIKEROUTER_REDIS does not: if it is the "
            "Redis, write rediss:// in place of redis://."
        )
    if found == "Redis" and tls:
        return f"The Redis at {where} does not let us in: {_NO_TLS}."
    return None
