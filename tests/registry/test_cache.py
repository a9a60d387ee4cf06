"""Files by their digests: what is damaged is noticed, what is not needed goes, what was killed goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from penstock.errors import LinkOutside, LoadFailed, NotFound, Unavailable
from penstock.model_digest import folder_digest
from penstock.registry import fetch as fetching
from penstock.registry.artifact_paths import check_path, check_paths
from penstock.registry.cache import Cache, file_name, write_atomically
from penstock.registry.eviction import evict
from penstock.registry.fetch import fetch
from penstock.registry.local_artifacts import LocalArtifacts
from penstock.registry.manifest import Known, Manifest
from penstock.registry.view import View, read_state
from supervised import eventually

FILES = {
    "MLmodel": "flavors",
    "data/model.onnx": "weights",
    "data/deep/er.txt": "",
    "copy": "weights",
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def bring(cache: Cache, source: Path, version: int = 1, model: str = "m") -> Manifest:
    artifacts = LocalArtifacts(source)
    return fetch(cache, artifacts, model=model, version=version, source=str(source), run_id="r")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", "registry")


@pytest.fixture
def view(tmp_path: Path) -> View:
    (tmp_path / "view").mkdir()
    return View(tmp_path / "view")


def test_a_version_is_fetched_once_and_shown_as_it_is(
    cache: Cache, view: View, tmp_path: Path
) -> None:
    source = write(tmp_path / "source", FILES)
    manifest = bring(cache, source)
    assert {path: file.size for path, file in manifest.files.items()} == {
        path: len(text) for path, text in FILES.items()
    }
    view.add("served", manifest, cache)
    shown = view.folder / "served" / "1"
    assert {
        str(p.relative_to(shown)): p.read_text() for p in shown.rglob("*") if p.is_file()
    } == FILES
    assert manifest.digest == folder_digest(shown) == folder_digest(source)
    assert oct((shown / "MLmodel").stat().st_mode)[-3:] == "444"
    # two of the files are the same one
    assert (shown / "copy").stat().st_nlink == 3
    assert cache.damaged(manifest) == []
    # nothing is asked for again
    shutil.rmtree(source)
    assert bring(cache, source) == manifest
    assert cache.manifest("m", 1) == manifest
    assert cache.manifest("m", 2) is None
    assert Cache(cache.folder, "another registry").manifest("m", 1) is None


def test_another_source_is_another_version(cache: Cache, tmp_path: Path) -> None:
    first = bring(cache, write(tmp_path / "a", {"f": "1"}))
    second = bring(cache, write(tmp_path / "b", {"f": "2"}))
    assert first.digest != second.digest
    assert cache.manifest("m", 1) == second


def test_damaged_files_alone_are_fetched_again(cache: Cache, tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    manifest = bring(cache, source)
    blob = cache.blob(manifest.files["MLmodel"].sha256)
    blob.chmod(0o600)
    blob.write_text("FLAVORS")
    gone = cache.blob(manifest.files["data/deep/er.txt"].sha256)
    gone.unlink()
    assert sorted(cache.damaged(manifest)) == ["MLmodel", "data/deep/er.txt"]
    assert not blob.exists()
    came: list[int] = []
    artifacts = LocalArtifacts(source)
    again = fetch(
        cache, artifacts, model="m", version=1, source=str(source), run_id="r", on_bytes=came.append
    )
    assert (again, came, cache.damaged(again)) == (manifest, [7, 0], [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "m"}', "\udcff"])
def test_a_damaged_record_is_none(cache: Cache, tmp_path: Path, text: str) -> None:
    bring(cache, write(tmp_path / "source", FILES))
    cache.remember("m", Known(meant={"@a": 1}))
    for path in cache.folder.rglob("*.json"):
        path.write_bytes(text.encode(errors="surrogateescape"))
    assert cache.manifest("m", 1) is None
    assert cache.known("m") == Known()
    assert list(cache.manifests()) == []


def test_a_record_whose_files_were_changed_is_none(cache: Cache, tmp_path: Path) -> None:
    bring(cache, write(tmp_path / "source", FILES))
    (path,) = cache.folder.rglob("1.json")
    path.write_text(path.read_text().replace('"MLmodel"', '"../../MLmodel"'))
    assert cache.manifest("m", 1) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from penstock.registry.cache import Cache
from penstock.registry.fetch import fetch
from penstock.registry.local_artifacts import LocalArtifacts

class Dies(LocalArtifacts):
    def copy(self, path, target):
        if path == "c":
            target.write_text("half of i")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().copy(path, target)

cache, source = Cache(Path(sys.argv[1]), "registry"), Path(sys.argv[2])
fetch(cache, Dies(source), model="m", version=1, source=str(source), run_id="r")
"""


def test_a_fetch_that_was_killed_goes_on(cache: Cache, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": "1", "b": "22", "c": "333", "d": "4444"})
    died = subprocess.run([sys.executable, "-c", KILLED, cache.folder, source], check=False)
    assert died.returncode == -9
    assert cache.manifest("m", 1) is None
    came: list[int] = []
    manifest = fetch(
        cache,
        LocalArtifacts(source),
        model="m",
        version=1,
        source=str(source),
        run_id="r",
        on_bytes=came.append,
    )
    assert came == [3, 4]
    assert cache.damaged(manifest) == []
    assert [p.suffix for p in (cache.folder / "fetches").iterdir()] == [".lock"]


def test_what_nobody_went_on_with_is_removed(cache: Cache, tmp_path: Path) -> None:
    with cache.fetching("m", 1) as folder:
        (folder / "file").write_text("half")
        cache.remove_abandoned(time.time() + 10_000)
        assert folder.exists()
    cache.remove_abandoned(time.time())
    assert folder.exists()
    cache.remove_abandoned(time.time() + 10_000)
    assert not folder.exists()


HOLDS = """
import sys, time
from pathlib import Path
from penstock.registry.cache import Cache
with Cache(Path(sys.argv[1]), "registry").fetching("m", 1) as folder:
    print(flush=True)
    sys.stdin.read()
"""


def test_two_servers_fetch_once(cache: Cache, tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, cache.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdout.readline()
    waits = """if True:
        import sys
        from pathlib import Path
        from test_cache import Cache, bring
        print(bring(Cache(Path(sys.argv[1]), "registry"), Path(sys.argv[2])).digest)
    """
    second = subprocess.Popen(
        [sys.executable, "-c", waits, cache.folder, source],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    lock = next((cache.folder / "fetches").glob("*.lock"))
    eventually(lambda: _waits_for(lock), "nobody waits")
    other.stdin.close()
    answer, _ = second.communicate(timeout=30)
    manifest = cache.manifest("m", 1)
    assert manifest is not None
    assert answer.decode().strip() == manifest.digest
    other.stdout.close()
    other.wait(30)


def _waits_for(lock: Path) -> bool:
    inode = f":{lock.stat().st_ino} "
    return any(
        "->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()
    )


def test_a_full_disk_is_said_before_it_is_full(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "free_bytes", lambda _: fetching.SPARE_BYTES + 6)
    source = write(tmp_path / "source", {"a": "1234567"})
    with pytest.raises(OSError, match="7 bytes are to come") as error:
        bring(cache, source)
    assert error.value.errno == errno.ENOSPC
    (source / "a").write_text("123456")
    assert bring(cache, source).size == 6


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_links_are_refused(cache: Cache, tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / "source", {"a": "1", "sub/b": "2"})
    secret = write(tmp_path / "elsewhere", {"secret": "word"})
    match kind:
        case "file":
            (source / "sub" / "link").symlink_to(secret / "secret")
        case "folder":
            (source / "link").symlink_to(secret)
        case _:
            os.mkfifo(source / "link")
    with pytest.raises(LinkOutside, match="link' is a symbolic link, or no file"):
        bring(cache, source)
    # also one that takes a file's place after the folder was read
    for path in ("link", "sub/link", "link/secret"):
        with pytest.raises((LinkOutside, FileNotFoundError)):
            LocalArtifacts(source).copy(path, tmp_path / "target")
        (tmp_path / "target").unlink(missing_ok=True)
    assert cache.manifest("m", 1) is None


def test_what_python_writes_is_left_out(cache: Cache, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": "1", "__pycache__/a.pyc": "2", "b/__pycache__/c": ""})
    assert list(bring(cache, source).files) == ["a"]


def test_files_that_are_not_there(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="its files are not there: no folder"):
        bring(cache, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadFailed, match="it has no files at"):
        bring(cache, tmp_path / "empty")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "./a", "a//b", "a/", "a\0b", "a\\b"),
        *("a" * 256, "\udcff", "/".join("a" * 65)),
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(LinkOutside):
        check_path(path)


def test_paths_that_contradict_each_other() -> None:
    check_paths(["a/b", "a/c", "..a", "a.b/..."])
    for paths in (["a", "a/b"], ["a/b/c", "a/b"], ["a", "a"]):
        with pytest.raises(LinkOutside):
            check_paths(paths)


class Lying:
    """Artifacts that are not what they say."""

    def __init__(self, listed: dict[str, int | None], content: str = "1") -> None:
        self.listed, self.content = listed, content

    def files(self) -> Mapping[str, int | None]:
        return self.listed

    def copy(self, path: str, target: Path) -> str:
        if path == "link":
            target.symlink_to("/etc/passwd")
        else:
            target.write_text(self.content)
        return "0" * 64


def test_artifacts_that_lie(cache: Cache) -> None:
    def take(version: int, listed: dict[str, int | None]) -> None:
        fetch(cache, Lying(listed), model="m", version=version, source="s", run_id="")

    with pytest.raises(LinkOutside, match=r"'\.\./x' leads out"):
        take(1, {"../x": 1})
    with pytest.raises(Unavailable, match="1 bytes came, expected 2"):
        take(2, {"x": 2})
    with pytest.raises(LinkOutside, match="something else than a file"):
        take(3, {"link": None})
    assert not any(p.is_file() for p in (cache.folder / "blobs").rglob("*"))


def test_a_view_is_a_repository_whose_versions_come_and_go(
    cache: Cache, view: View, tmp_path: Path
) -> None:
    for version in (1, 2):
        manifest = bring(cache, write(tmp_path / f"s{version}", {"f": str(version)}), version)
        view.add("m", manifest, cache)
    config = write(tmp_path / "beside", {"config.pbtxt": "# 1", "labels/a.txt": "a"})
    beside = {"config.pbtxt": config / "config.pbtxt", "labels/a.txt": config / "labels/a.txt"}
    assert view.put_beside("m", beside)
    assert not view.put_beside("m", beside)
    (config / "config.pbtxt").write_text("# 2")
    assert view.put_beside("m", {"config.pbtxt": config / "config.pbtxt"})
    assert not (view.folder / "m" / "labels" / "a.txt").exists()
    assert (view.folder / "m" / "config.pbtxt").read_text() == "# 2"
    assert view.versions("m") == [1, 2]
    with (view.folder / "m" / "1" / "f").open() as file:
        view.discard(view.hide("m", 1))
        assert view.versions("m") == [2]
        assert file.read() == "1"
    # what was killed in between
    (view.folder / ".new-x").mkdir()
    hidden = view.hide("m")
    view.remove_leftovers()
    assert not hidden.exists()
    assert view.versions("m") == []
    assert list(view.folder.iterdir()) == []


def test_a_view_without_links_has_copies(
    cache: Cache, view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    view.add("m", bring(cache, write(tmp_path / "source", FILES)), cache)
    assert (view.folder / "m" / "1" / "copy").read_text() == "weights"


def test_a_version_that_can_t_be_shown_whole_is_not_shown(
    cache: Cache, view: View, tmp_path: Path
) -> None:
    manifest = bring(cache, write(tmp_path / "source", FILES))
    cache.blob(manifest.files["copy"].sha256).unlink()
    with pytest.raises(FileNotFoundError):
        view.add("m", manifest, cache)
    assert view.versions("m") == []
    assert list(view.folder.iterdir()) == []


def test_a_state_that_can_t_be_read_is_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / ".state").write_text("{")
    assert read_state(tmp_path) is None


def test_the_limit_takes_what_was_served_longest_ago(
    cache: Cache, view: View, tmp_path: Path
) -> None:
    manifests = {}
    for version in (1, 2, 3, 4, 5):
        files = {"own": str(version) * 100, "shared": "s" * 50}
        manifests[version] = bring(cache, write(tmp_path / f"s{version}", files), version)
    paths = {m.version: path for path, _, m in cache.manifests()}
    for version, path in paths.items():
        os.utime(path, (version, version))
    view.add("m", manifests[1], cache)
    cache.remember("m", Known(meant={"@champion": 2}))
    assert evict(cache, 0, time.time()) == (550, 0)
    assert evict(cache, 550, time.time()) == (550, 0)
    # 1 is shown, and 2 is what a restart needs
    assert evict(cache, 449, time.time()) == (350, 200)
    assert {v for v in manifests if cache.manifest("m", v)} == {1, 2, 5}
    cache.used(manifests[5])
    assert evict(cache, 10, time.time()) == (250, 100)
    assert {v for v in manifests if cache.manifest("m", v)} == {1, 2}
    assert cache.damaged(manifests[1]) == []
    assert cache.damaged(manifests[2]) == []
    # 3 is fetched again where it is asked for
    assert bring(cache, tmp_path / "s3", 3) == manifests[3]


def test_the_limit_takes_files_of_no_version_but_not_those_on_their_way(cache: Cache) -> None:
    blob = cache.blob("a" * 64)
    write_atomically(blob, b"x" * 100)
    assert evict(cache, 1, time.time()) == (100, 0)
    assert evict(cache, 1, time.time() + 10_000) == (0, 100)


def test_the_limit_leaves_what_a_slow_fetch_has_brought(cache: Cache, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": "a" * 100, "b": "b" * 100})
    looked: list[tuple[int, int]] = []

    class Slow(LocalArtifacts):
        def copy(self, path: str, target: Path) -> str:
            # an hour between two files
            looked.append(evict(cache, 1, time.time() + 3600))
            return super().copy(path, target)

    manifest = fetch(cache, Slow(source), model="m", version=1, source=str(source), run_id="r")
    assert looked == [(0, 0), (100, 0)]
    assert cache.damaged(manifest) == []


def test_the_limit_takes_what_a_fetch_has_brought_that_was_given_up(
    cache: Cache, tmp_path: Path
) -> None:
    source = write(tmp_path / "source", {"a": "a" * 100, "b": "b" * 100})

    class Broken(LocalArtifacts):
        def copy(self, path: str, target: Path) -> str:
            if path == "b":
                raise Unavailable("gone")
            return super().copy(path, target)

    with pytest.raises(Unavailable):
        fetch(cache, Broken(source), model="m", version=1, source=str(source), run_id="r")
    assert evict(cache, 1, time.time()) == (100, 0)
    assert evict(cache, 1, time.time() + 3600) == (0, 100)
    assert bring(cache, source).size == 200


def test_how_old_a_file_says_to_be_does_not_matter(cache: Cache, tmp_path: Path) -> None:
    file = cache.folder / "file"
    file.write_text("x")
    os.utime(file, (1, 1))
    cache.put(file, "a" * 64)
    assert evict(cache, 0, time.time()) == (1, 0)
    write_atomically(cache.blob("b" * 64), b"x")
    assert evict(cache, 1, time.time()) == (2, 0)


def test_names_of_files() -> None:
    assert file_name("digits") == "digits"
    assert file_name("..") == "%2E%2E"
    assert file_name("a b/c") == "a%20b%2Fc"
    assert len(file_name("é" * 200)) < 200
