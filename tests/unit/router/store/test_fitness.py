"""Which servers may be the store, by what they say of themselves."""

from typing import Any

import pytest

from router.listeners import Listener
from router.store.fitness import Demands, refusal, store_mismatch, unfit

_FIT: dict[str, Any] = {
    "redis_mode": "standalone",
    "maxmemory": 1000,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}


def test_a_server_that_keeps_all_on_disk_and_drops_nothing_is_fit() -> None:
    assert unfit(_FIT, Demands(), "a:1") is None


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru"])
def test_a_server_that_may_drop_keys_is_refused_unless_it_is_allowed(policy: str) -> None:
    info = {**_FIT, "maxmemory_policy": policy}
    why = unfit(info, Demands(may_forget=True), "a:1")
    assert why is not None
    assert "a:1" in why
    assert policy in why
    assert "SPIKEROUTER_REDIS_MAY_EVICT" in why
    assert unfit(info, Demands(may_evict=True), "a:1") is None


def test_a_policy_without_a_limit_of_memory_drops_nothing() -> None:
    assert unfit({**_FIT, "maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, Demands(), "") is None


@pytest.mark.parametrize("said", [{"aof_enabled": 0}, {"aof_enabled": 0, "rdb_last_save_time": 9}])
def test_a_server_without_a_log_is_refused_unless_it_is_allowed(said: dict[str, Any]) -> None:
    info = {**_FIT, **said}
    why = unfit(info, Demands(may_evict=True), "a:1")
    assert why is not None
    assert "SPIKEROUTER_REDIS_MAY_FORGET" in why
    assert unfit(info, Demands(may_forget=True), "a:1") is None


def test_a_server_that_says_nothing_of_a_log_is_taken_for_one_without() -> None:
    assert unfit({"maxmemory": 0}, Demands(), "a:1") is not None


def test_a_sentinel_is_refused_whatever_is_allowed() -> None:
    why = unfit({"redis_mode": "sentinel"}, Demands(may_evict=True, may_forget=True), "a:1")
    assert why is not None
    assert "Sentinel" in why


@pytest.mark.parametrize(
    "told", ["Connection refused", "LOADING Redis is loading", "CLUSTERDOWN The cluster is down"]
)
def test_what_passes_by_itself_is_no_refusal(told: str) -> None:
    assert refusal(told, "a:1") is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("NOAUTH HELLO must be called with the client already authenticated", "a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "no such user"),
        ("NOPERM this user has no permissions to run the 'info' command", "lacks a right"),
        ("ERR ACL failure in script: User u has no permissions to run 'info'", "lacks a right"),
        ("DENIED Redis is running in protected mode because", "protected mode"),
        ("ERR SELECT is not allowed in cluster mode", "database 0"),
        ("ERR DB index is out of range", "no such database"),
        ("ERR This instance has cluster support disabled", "no Redis Cluster any more"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "not trusted"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "speaks no TLS"),
        ("[SSL: RECORD_LAYER_FAILURE] record layer failure", "speaks no TLS"),
    ],
)
def test_a_refusal_that_time_does_not_mend_is_a_sentence(told: str, words: str) -> None:
    why = refusal(told, "a:1")
    assert why is not None
    assert words in why
    assert "a:1" in why


def test_a_certificate_is_missing_only_where_none_is_shown() -> None:
    found: Listener = "TLS and a certificate"
    assert store_mismatch(found, "a:1", tls=True, certificate=True) is None
    assert "CERTIFICATE" in (store_mismatch(found, "a:1", tls=True) or "")
    assert "rediss://" in (store_mismatch(found, "a:1", tls=False) or "")


def test_what_answers_as_it_should_is_no_mismatch() -> None:
    assert store_mismatch("Redis", "a:1", tls=False) is None
    assert store_mismatch("TLS", "a:1", tls=True) is None
