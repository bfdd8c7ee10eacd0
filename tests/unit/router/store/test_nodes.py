"""How the store's URL names its servers."""

import pytest

from router.store.nodes import Nodes, split_url


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("redis://a:1/0", ("redis://a:1/0",)),
        ("redis://a:1,b:2/0", ("redis://a:1/0", "redis://b:2/0")),
        ("rediss://u:p%2Cw@a:1, b:2", ("rediss://u:p%2Cw@a:1", "rediss://u:p%2Cw@b:2")),
        ("redis://:p,w@a:1,b:2/0?x=y", ("redis://:p,w@a:1/0?x=y", "redis://:p,w@b:2/0?x=y")),
        ("redis://[::1]:1,[::2]:2/0", ("redis://[::1]:1/0", "redis://[::2]:2/0")),
        ("unix:///run/redis.sock?db=1", ("unix:///run/redis.sock?db=1",)),
    ],
)
def test_each_server_gets_a_url_with_all_that_is_said_of_them(
    url: str, servers: tuple[str, ...]
) -> None:
    assert split_url(url) == servers


def test_servers_are_shown_without_user_and_password() -> None:
    nodes = Nodes("redis://me:secret@a:1,b/0", timeout=1.0, options={})
    assert nodes.where == "a:1,b"
    assert nodes.addresses == (("a", 1), ("b", 6379))
    assert not nodes.tls


def test_a_socket_file_has_no_address() -> None:
    nodes = Nodes("unix:///run/redis.sock", timeout=1.0, options={})
    assert nodes.where == "/run/redis.sock"
    assert nodes.addresses == ()


def test_an_illegal_port_is_no_url() -> None:
    with pytest.raises(ValueError, match="port"):
        Nodes("redis://a:port/0", timeout=1.0, options={})
