"""Arrays by key, in memory and in files that processes share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skfocal._runtime import workers
from skfocal._runtime.array_store import FileStore, MemoryStore
from skfocal._runtime.workers import shared_folder
from skfocal._utils.hashing import digest

KEYS = [digest("document", i % 50) for i in range(100)]
OF_ONE_SHARD = [key for key in KEYS[:50] if key[0] % 16 == KEYS[1][0] % 16][:4]


def make_entry(i):
    return np.arange(i % 50, dtype=np.int32), i % 50


class Maker:
    """Makes entries and remembers for which positions."""

    def __init__(self):
        self.made = []

    def __call__(self, positions):
        self.made += positions
        return [make_entry(i) for i in positions]


def check(entries):
    for i, (array, extra) in enumerate(entries):
        assert extra == i % 50 and np.array_equal(array, make_entry(i)[0])


@pytest.fixture(params=["memory", "files"])
def store(request, tmp_path):
    return MemoryStore(1_000_000) if request.param == "memory" else FileStore(tmp_path, np.int32)


def test_each_key_is_made_once(store):
    make = Maker()
    check(store.fetch(KEYS, make))
    assert sorted(make.made) == list(range(50)) and store.n_made == 50
    check(store.fetch(KEYS, make))
    assert len(make.made) == 50
    assert store.fetch([], make) == []


def test_files_are_shared_by_whoever_has_the_folder(tmp_path):
    FileStore(tmp_path, np.int32).fetch(KEYS[:30], Maker())
    make = Maker()
    other = FileStore(tmp_path, np.int32)
    check(other.fetch(KEYS, make))
    assert sorted(make.made) == list(range(30, 50))


def test_rows_may_be_vectors(tmp_path):
    rows = {i: np.random.RandomState(i).rand(i + 1, 3).astype(np.float32) for i in range(20)}
    keys = [digest(i) for i in rows]
    store = FileStore(tmp_path, np.float32, width=3)
    for _ in range(2):
        for i, (array, _) in enumerate(store.fetch(keys, lambda p: [(rows[k], 0) for k in p])):
            assert np.array_equal(array, rows[i])


def test_what_a_killed_process_left_half_written_is_cut_off(tmp_path):
    FileStore(tmp_path, np.int32).fetch(KEYS[:25], Maker())
    for file in tmp_path.rglob("*"):
        if file.suffix in (".data", ".index"):
            with file.open("ab") as half:
                half.write(b"xyz")
    check(FileStore(tmp_path, np.int32).fetch(KEYS, Maker()))
    check(FileStore(tmp_path, np.int32).fetch(KEYS, lambda positions: pytest.fail("made again")))


@pytest.mark.parametrize("kinds", [["data"], ["index"], ["data", "index"]])
@pytest.mark.parametrize("by", ["this", "another"])
def test_a_store_of_which_a_part_was_removed_starts_anew(tmp_path, kinds, by):
    store = FileStore(tmp_path, np.int32)
    check(store.fetch(KEYS[:25], Maker()))
    for kind in kinds:
        for file in tmp_path.rglob(f"*.{kind}"):
            file.unlink()
    if by == "another":  # meanwhile it has written to the same shards, in another order
        order = range(39, -1, -1)
        FileStore(tmp_path, np.int32).fetch(
            [KEYS[i] for i in order], lambda rows: [make_entry(order[i]) for i in rows]
        )
    check(store.fetch(KEYS, Maker()))
    check(FileStore(tmp_path, np.int32).fetch(KEYS, lambda positions: pytest.fail("made again")))


def fetched(store, key, before=lambda: None):
    """Return the number that a store gives for a key, after it has made it if it must."""

    def make(rows):
        before()
        return [(np.full(3, KEYS.index(key), np.int32), 0) for _ in rows]

    ((array, _),) = store.fetch([key], make)
    assert len(array) == 3 and len(set(array.tolist())) == 1
    return array[0]


@pytest.mark.parametrize("kind", ["data", "index"])
def test_what_is_removed_while_entries_are_made_is_noticed_before_any_are_written(tmp_path, kind):
    first, second, _, _ = OF_ONE_SHARD
    store = FileStore(tmp_path, np.int32)
    assert fetched(store, first) == KEYS.index(first)
    refresh = store._refresh

    def killed_after_writing(shard):
        if any(second in file.read_bytes() for file in tmp_path.rglob("*.index")):
            raise KeyboardInterrupt
        refresh(shard)

    store._refresh = killed_after_writing
    with pytest.raises(KeyboardInterrupt):
        fetched(store, second, lambda: [file.unlink() for file in tmp_path.rglob(f"*.{kind}")])
    other = FileStore(tmp_path, np.int32)
    for key in (first, second):
        assert fetched(other, key) == KEYS.index(key)


def test_files_that_begin_as_those_that_were_removed_are_told_apart(tmp_path):
    first, second, third, fourth = OF_ONE_SHARD
    store, other = FileStore(tmp_path, np.int32), FileStore(tmp_path, np.int32)
    fetched(store, first), fetched(store, second)
    for file in [*tmp_path.rglob("*.data"), *tmp_path.rglob("*.index")]:
        file.unlink()
    fetched(other, first), fetched(other, third)
    for key in (fourth, second, first, third):
        assert fetched(store, key) == KEYS.index(key)


def test_data_that_lack_rows_of_their_index_are_made_again(tmp_path):
    FileStore(tmp_path, np.int32).fetch(KEYS[:25], Maker())
    for file in tmp_path.rglob("*.data"):
        os.truncate(file, file.stat().st_size // 2)
    check(FileStore(tmp_path, np.int32).fetch(KEYS, Maker()))


def test_two_who_write_without_a_lock_keep_no_wrong_entry(tmp_path):
    first, second, _, _ = OF_ONE_SHARD
    store, counted = FileStore(tmp_path, np.int32), []

    def interrupted(name, size):
        n_rows = FileStore._whole(store, name, size)
        counted.append(name)
        if len(counted) == 1:  # another one begins and ends between the count and the write
            for lock in tmp_path.glob("*.lock"):
                lock.unlink()
            fetched(FileStore(tmp_path, np.int32), second)
        return n_rows

    store._whole = interrupted
    assert fetched(store, first) == KEYS.index(first) and len(counted) == 4
    for key in (first, second):
        assert fetched(FileStore(tmp_path, np.int32), key) == KEYS.index(key)


def test_a_full_disk_keeps_nothing_and_leaves_the_rest_as_it_was(tmp_path, monkeypatch):
    store = FileStore(tmp_path, np.int32)
    check(store.fetch(KEYS[:10], Maker()))
    opened = Path.open

    def full(path, mode="r", **kwargs):
        if mode == "ab" and path.suffix == full.kind:
            kwargs["buffering"], path = 0, Path("/dev/full")
        return opened(path, mode, **kwargs)

    for full.kind in (".data", ".index"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", full)
            check(store.fetch(KEYS, Maker()))
    check(FileStore(tmp_path, np.int32).fetch(KEYS[:10], lambda rows: pytest.fail("made again")))
    check(store.fetch(KEYS, Maker()))
    check(FileStore(tmp_path, np.int32).fetch(KEYS, lambda rows: pytest.fail("made again")))


def test_an_error_while_making_keeps_nothing_and_leaves_no_lock(store):
    def fail(positions):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.fetch(KEYS, fail)
    check(store.fetch(KEYS, Maker()))


def test_processes_at_the_same_time_make_each_key_once(tmp_path):
    code = (
        "import sys, time, numpy as np; from skfocal._runtime.array_store import FileStore\n"
        "from skfocal._utils.hashing import digest\n"
        "def make(p):\n"
        "    time.sleep(0.02); return [(np.arange(i % 50, dtype=np.int32), i % 50) for i in p]\n"
        "s = FileStore(sys.argv[1], np.int32)\n"
        "s.fetch([digest('document', i % 50) for i in range(100)], make)\n"
        "print(s.n_made)"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert sum(int(job.communicate()[0]) for job in jobs) == 50
    check(FileStore(tmp_path, np.int32).fetch(KEYS, Maker()))


def test_memory_is_bounded():
    store = MemoryStore(1000)
    for i in range(20):
        store.fetch([KEYS[i]], lambda p: [(np.zeros(20, np.int32), 0)])
        assert store.n_bytes <= 1480 and len(store.entries) <= 3
    assert store.n_made == 20


def test_files_are_bounded(tmp_path):
    store = FileStore(tmp_path, np.int32, limit=2000)
    for _ in range(2):
        for i in range(0, 50, 2):
            numbers = [i, i + 1, i]
            entries = store.fetch(
                [KEYS[n] for n in numbers],
                lambda positions, numbers=numbers: [make_entry(numbers[p]) for p in positions],
            )
            for n, (array, extra) in zip(numbers, entries, strict=True):
                assert extra == n and np.array_equal(array, make_entry(n)[0])
    assert 2000 < store.n_bytes < 3000
    assert len(list(filter(None, store.find(KEYS[:50])))) == 6  # of 400 bytes and their length each
    check(store.fetch(KEYS[:2], lambda positions: pytest.fail("made again")))


def test_keys_tell_parts_apart():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("\ud800") != digest("?") and len(digest()) == 16
    for array in (np.arange(6.0), np.zeros(0, np.float32)):
        assert digest("x", memoryview(array)) == digest("x", array.tobytes())


def test_folder_is_the_owners_and_goes_with_its_process(tmp_path):
    code = (
        "from skfocal._runtime.workers import shared_folder; f = shared_folder(); "
        "(f / 'x').touch(); print(f, oct(f.parent.stat().st_mode)[-3:])"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    folder, mode = done.stdout.split()
    assert folder.startswith(str(tmp_path)) and mode == "700" and not os.path.exists(folder)


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    own = shared_folder()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = own.parent / str(gone.pid), own.parent / "1"
    half_removed = own.parent / "removed-0"
    dead.mkdir(), alive.mkdir(), half_removed.mkdir()
    own.rmdir()
    assert shared_folder() == own
    assert sorted(own.parent.iterdir()) == sorted([alive, own])


def test_a_link_that_another_user_has_put_there_is_not_followed(tmp_path, monkeypatch):
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can make a link of another user")
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    own = tmp_path / "own"
    (own / "1000000000").mkdir(parents=True)  # the number of no process
    link = tmp_path / "skfocal-0"
    link.symlink_to(own)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(PermissionError, match="belongs to another user"):
        shared_folder()
    assert (own / "1000000000").exists()
