from pathlib import Path
from types import SimpleNamespace

import pytest

from router.artifacts import (
    ArtifactCache,
    ArtifactDamaged,
    Artifacts,
    ArtifactsUnavailable,
    FileArtifacts,
    open_artifacts,
)
from router.settings import Settings, SettingsError
from router.store.redis import RedisStore
from router.topics import TopicError
from tests.unit.topologies.hostile import NOT_READABLE, make
from topologies.artifact import digest

DATA = b"weights" * 100
NAME = digest(DATA)
OTHER = digest(b"other")


@pytest.fixture(params=["directory", "file url", "object store"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> FileArtifacts:
    """A store that does not exist before it is first written to."""
    urls = {
        "directory": str(tmp_path / "a" / "b"),
        "file url": f"file://{tmp_path}/a/b",
        "object store": f"memory://bucket-{tmp_path.name}/prefix",
    }
    return FileArtifacts(urls[request.param])


async def test_what_was_put_comes_back(artifacts: FileArtifacts) -> None:
    await artifacts.put_artifact(NAME, DATA)
    await artifacts.put_artifact(NAME, DATA)
    assert await artifacts.get_artifact(NAME) == DATA


async def test_what_is_not_there_is_none_before_and_after(artifacts: FileArtifacts) -> None:
    assert await artifacts.get_artifact(NAME) is None
    await artifacts.put_artifact(NAME, DATA)
    await artifacts.remove_artifact(NAME)
    await artifacts.remove_artifact(NAME)
    assert await artifacts.get_artifact(NAME) is None


async def test_damaged_bytes_are_refused_by_their_hash(artifacts: FileArtifacts) -> None:
    await artifacts.put_artifact(NAME, DATA[:-1])
    with pytest.raises(ArtifactDamaged, match="deploy again"):
        await artifacts.get_artifact(NAME)


async def test_only_whole_files_stand_under_their_name(tmp_path: Path) -> None:
    await FileArtifacts(str(tmp_path)).put_artifact(NAME, DATA)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


async def test_name_that_is_no_hash_is_refused(artifacts: FileArtifacts) -> None:
    with pytest.raises(TopicError):
        await artifacts.get_artifact("../secret")


async def test_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactsUnavailable, match="may be written"):
        await FileArtifacts(str(tmp_path / "file")).put_artifact(NAME, DATA)


def test_unknown_kind_of_url_is_a_setting_that_is_not_legal() -> None:
    with pytest.raises(SettingsError, match="SPIKEROUTER_ARTIFACTS"):
        FileArtifacts("nonsense://bucket")


async def test_redis_is_the_store_unless_another_is_named(tmp_path: Path) -> None:
    async with RedisStore.connect("redis://127.0.0.1:1/0") as store:
        assert open_artifacts(Settings.load(), store) is store
        other = open_artifacts(Settings.load(artifacts=str(tmp_path)), store)
        assert isinstance(other, FileArtifacts)


class _Behind:
    """A store that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.data: dict[str, bytes] = {NAME: DATA, OTHER: b"other"}

    async def put_artifact(self, operator: str, artifact: bytes) -> None:
        self.data[operator] = artifact

    async def get_artifact(self, operator: str) -> bytes | None:
        self.asked += 1
        return self.data.get(operator)

    async def remove_artifact(self, operator: str) -> None:
        del self.data[operator]


@pytest.fixture
def cached(tmp_path: Path) -> SimpleNamespace:
    behind = _Behind()
    store: Artifacts = behind
    directory = tmp_path / "cache"
    return SimpleNamespace(
        cache=ArtifactCache(store, directory), behind=behind, directory=directory
    )


async def test_cache_asks_once_for_all_workers_of_a_machine(cached: SimpleNamespace) -> None:
    another = ArtifactCache(cached.behind, cached.directory)
    for cache in (cached.cache, another, cached.cache):
        assert await cache.get_artifact(NAME) == DATA
    assert cached.behind.asked == 1


async def test_damaged_file_of_the_cache_is_fetched_anew(cached: SimpleNamespace) -> None:
    await cached.cache.get_artifact(NAME)
    (cached.directory / NAME).write_bytes(DATA[:-1])
    assert await cached.cache.get_artifact(NAME) == DATA
    assert (cached.directory / NAME).read_bytes() == DATA


async def test_what_no_network_has_leaves_the_cache(cached: SimpleNamespace) -> None:
    await cached.cache.get_artifact(NAME)
    await cached.cache.get_artifact(OTHER)
    (cached.directory / "notes.txt").write_text("somebody's")
    await cached.cache.keep([NAME])
    assert {path.name for path in cached.directory.iterdir()} == {NAME, "notes.txt"}
    assert await cached.cache.get_artifact(OTHER) == b"other"


async def test_what_the_store_does_not_have_is_not_cached(cached: SimpleNamespace) -> None:
    missing = digest(b"missing")
    assert await cached.cache.get_artifact(missing) is None
    assert not (cached.directory / missing).exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a terabyte"])
async def test_artifact_that_is_no_file_is_unavailable_and_never_waited_for(
    kind: str, tmp_path: Path
) -> None:
    make(kind, tmp_path, NAME)
    with pytest.raises(ArtifactsUnavailable):
        await FileArtifacts(str(tmp_path)).get_artifact(NAME)
    with pytest.raises(ArtifactsUnavailable, match=NOT_READABLE[kind]):
        await ArtifactCache(FileArtifacts(str(tmp_path)), tmp_path).get_artifact(NAME)
