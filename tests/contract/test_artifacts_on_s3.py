"""Artifacts in an object store that speaks S3 over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest

from router.artifacts import ArtifactDamaged, ArtifactsUnavailable, FileArtifacts
from tests.contract.s3_server import KEY, s3_server
from topologies.artifact import digest

_ARTIFACT = b"an operator" * 100_000
_OPERATOR = digest(_ARTIFACT)
_PATH = f"/bucket/some/prefix/{_OPERATOR}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that the environment names, as on a machine that serves."""
    with s3_server() as running:
        for name, value in {
            "AWS_ENDPOINT_URL": running.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def artifacts(server: Any) -> FileArtifacts:
    return FileArtifacts("s3://bucket/some/prefix")


async def test_artifact_is_one_object_under_its_hash(server: Any, artifacts: FileArtifacts) -> None:
    await artifacts.put_artifact(_OPERATOR, _ARTIFACT)
    assert server.objects == {_PATH: _ARTIFACT}
    assert await artifacts.get_artifact(_OPERATOR) == _ARTIFACT


async def test_what_is_not_there_is_none_and_may_be_removed(artifacts: FileArtifacts) -> None:
    assert await artifacts.get_artifact(_OPERATOR) is None
    await artifacts.remove_artifact(_OPERATOR)


async def test_removed_artifact_is_gone_from_the_bucket(
    server: Any, artifacts: FileArtifacts
) -> None:
    await artifacts.put_artifact(_OPERATOR, _ARTIFACT)
    await artifacts.remove_artifact(_OPERATOR)
    assert server.objects == {}


async def test_damaged_object_is_never_passed_off(server: Any, artifacts: FileArtifacts) -> None:
    server.objects[_PATH] = _ARTIFACT[:-1]
    with pytest.raises(ArtifactDamaged, match=_OPERATOR):
        await artifacts.get_artifact(_OPERATOR)


async def test_store_that_refuses_is_told_in_a_sentence_and_may_be_tried_again(
    server: Any, artifacts: FileArtifacts
) -> None:
    server.broken = True
    with pytest.raises(ArtifactsUnavailable, match="cannot be had") as raised:
        await artifacts.get_artifact(_OPERATOR)
    assert raised.value.retryable
