"""Stores of arrays of varying length by key: in memory, in files, or packed for sending."""

import contextlib
import errno
import functools
import os
import shutil
import threading
import uuid
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

_N_SHARDS = 16
REMOVED = "removed-"  # begins the name of a folder that is being removed
_N_TRIES = 20  # to write to a folder that others clear meanwhile
_ENTRY_BYTES = 400  # of the Python objects of an entry in memory: key, array, tuple, number
_RECORD = np.dtype([("key", "V16"), ("start", "<i8"), ("length", "<i8"), ("extra", "<i8")])


class MemoryStore:
    """Keep ``(array, number)`` by key in this process.

    Parameters
    ----------
    limit : int
        Bytes of entries. A store that holds more is emptied before new entries are added.
    """

    def __init__(self, limit):
        self.limit = limit
        self.n_made = 0
        self._lock = threading.RLock()
        self.clear()

    def clear(self):
        """Forget everything."""
        with self._lock:
            self.entries = {}
            self.n_bytes = 0

    def fetch(self, keys, make):
        """Return the entry of each key.

        ``make`` is called with the positions of the missing keys, each key once, and returns
        their entries.
        """
        with self._lock:
            if self.n_bytes > self.limit:
                self.clear()
            positions = _first_positions(keys, self.entries)
            for i, (array, extra) in zip(positions, make(positions), strict=True):
                self.entries[keys[i]] = array, extra
                self.n_bytes += array.nbytes + _ENTRY_BYTES
            self.n_made += len(positions)
            return [self.entries[key] for key in keys]


class FileStore:
    """Keep ``(array, number)`` by key in memory-mapped files that processes share.

    Keys are divided into shards, each with a lock of its own. Processes that need the same entries
    therefore work on different shards at the same time, and each entry is made only once, unless
    the store is cleared meanwhile or cannot be written to.

    The files are in a folder within `folder` whose name is never used again, and the locks beside
    it. To clear the store is to rename that folder, even while others write to it: a writer then
    misses its files, forgets what it knew of them and starts anew. So it does if something else
    has removed some of the files, such as a cleaner of temporary files.

    Parameters
    ----------
    folder : path
        Created if it does not exist, within a folder that does.
    dtype : numpy dtype
    width : int, default=None
        Arrays are of shape (length,), or (length, width).
    limit : int, default=None
        Bytes of entries above which a process adds no more; None for no limit.
    """

    def __init__(self, folder, dtype, width=None, limit=None):
        self.folder = Path(os.path.realpath(folder))  # as errors name it
        self.dtype = np.dtype(dtype)
        self.width = width
        self._row_bytes = self.dtype.itemsize * (width or 1)
        self.limit = limit
        self.n_made = 0
        self._lock = threading.RLock()  # held while entries are added
        self._state = threading.Lock()  # guards the attributes that `_start` sets
        self._start(None)

    def _start(self, files):
        """Forget all entries; from now on, keep those in the folder `files`."""
        with self._state:
            self._files = files
            self._places: dict = {}  # key -> (shard, start, length, extra)
            self._maps: dict = {}
            self._known = [0] * _N_SHARDS  # number of index records read from each shard
            self._identities: dict = {}  # tell the files of a shard from others of their names
            self.n_bytes = 0  # of the known entries

    def _open(self):
        """Find or create the folder of the files, unless the one in use is still there."""
        if self._files is not None and self._files.exists():
            return
        self.folder.mkdir(exist_ok=True)
        with FileLock(self.folder / "lock"):
            files = next(self.folder.glob("files-*"), None)
            if files is None:
                files = self.folder / f"files-{uuid.uuid4().hex}"
                files.mkdir()
        self._start(files)

    def clear(self):
        """Forget everything and remove the files."""
        with self._lock:
            self._start(None)
            remove_files(self.folder)

    def find(self, keys):
        """Return the entry of each key, or None where this process does not know it."""
        with self._state:
            return [self._entry(key) if key in self._places else None for key in keys]

    def _entry(self, key):
        shard, start, length, extra = self._places[key]
        return self._maps[shard][start : start + length], extra

    def fetch(self, keys, make):
        """Return the entry of each key; see :meth:`MemoryStore.fetch`."""
        with self._lock:
            for _ in range(_N_TRIES):
                try:
                    self._open()
                    return self._fetch(keys, make)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        break
                    if error.errno not in (errno.ENOENT, errno.EEXIST) or not self._owns(error):
                        raise
                    if self._files is not None:
                        remove_at_once(self._files)  # perhaps only a part is missing
            return self._fetch_beside(keys, make)  # no place, or cleared all the time

    def _owns(self, error):
        """Say whether an error is about a file of this store, not of one who makes entries."""
        path = Path(str(error.filename))
        return self.folder in (path, *path.parents)

    def _fetch(self, keys, make):
        if self.limit is not None and self.n_bytes > self.limit:
            return self._fetch_beside(keys, make)
        shards: dict = {}
        for i in _first_positions(keys, self._places):
            shards.setdefault(keys[i][0] % _N_SHARDS, []).append(i)
        while shards:
            shard, lock = self._lock_one(shards)
            with lock:
                lock.release()  # the with block holds it a second time
                if self._known[shard] or (self._files / f"{shard}.index").exists():
                    self._refresh(shard)
                positions = [i for i in shards.pop(shard) if keys[i] not in self._places]
                if positions:
                    self._append(shard, [keys[i] for i in positions], make(positions))
        return self.find(keys)

    def _fetch_beside(self, keys, make):
        """Make the missing entries, and keep none of them."""
        positions = _first_positions(keys, self._places)
        entries = make(positions) if positions else []
        made = dict(zip([keys[i] for i in positions], entries, strict=True))
        self.n_made += len(positions)
        return [made.get(key) or entry for key, entry in zip(keys, self.find(keys), strict=True)]

    def _lock_one(self, shards):
        """Lock the first shard that is free; if none is, wait for the first one."""
        locks = {shard: FileLock(self.folder / f"{shard}.lock") for shard in shards}
        for shard, lock in locks.items():
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return shard, lock
        shard, lock = next(iter(locks.items()))
        lock.acquire()
        return shard, lock

    def _refresh(self, shard):
        """Read the entries that other processes have added to a shard."""
        index, data = (self._files / f"{shard}.{kind}" for kind in ("index", "data"))
        found = data.stat()
        with index.open("rb") as file:
            # The map of the data keeps its inode from being another file's.
            identity = found.st_ino, file.read(_RECORD.itemsize)
            if self._known[shard] and self._identities[shard] != identity:
                raise FileNotFoundError(errno.ENOENT, "removed, and written anew", str(index))
            file.seek(self._known[shard] * _RECORD.itemsize)
            added = file.read()
        records = np.frombuffer(added, _RECORD, len(added) // _RECORD.itemsize)
        if len(records) == 0:
            return
        n_rows = found.st_size // self._row_bytes
        if (records["start"] + records["length"]).max() > n_rows:
            raise FileNotFoundError(errno.ENOENT, "shorter than its index says", str(data))
        self._identities[shard] = identity
        shape = (n_rows,) if self.width is None else (n_rows, self.width)
        rows = (
            np.memmap(data, self.dtype, "r", shape=shape) if n_rows else np.empty(shape, self.dtype)
        )
        with self._state:
            self._known[shard] += len(records)
            self._maps[shard] = rows
            n_new = int(records["length"].sum()) * self._row_bytes
            self.n_bytes += n_new + _ENTRY_BYTES * len(records)
            for key, start, length, extra in records.tolist():
                self._places[key] = shard, start, length, extra

    def _append(self, shard, keys, entries):
        if self._known[shard]:
            self._refresh(shard)  # are the files still there, after the entries were made?
        start = self._whole(f"{shard}.data", self._row_bytes)
        self._whole(f"{shard}.index", _RECORD.itemsize)
        records = np.zeros(len(keys), _RECORD)
        with (self._files / f"{shard}.data").open("ab") as file:
            for i, (key, (array, extra)) in enumerate(zip(keys, entries, strict=True)):
                records[i] = key, start, len(array), extra
                # Not tofile, which does not say that the disk is full.
                file.write(np.ascontiguousarray(array, self.dtype).tobytes())
                start += len(array)
            file.flush()
            if file.tell() != start * self._row_bytes:
                raise FileNotFoundError(errno.ENOENT, "written by two, without a lock", file.name)
        with (self._files / f"{shard}.index").open("ab") as file:
            file.write(records.tobytes())
        self.n_made += len(keys)
        self._refresh(shard)

    def _whole(self, name, size):
        """Cut off a row that a killed process left half written; return the number of rows."""
        path = self._files / name
        n_rows = path.stat().st_size // size if path.exists() else 0
        if path.exists():
            os.truncate(path, n_rows * size)
        return n_rows


def remove_files(folder):
    """Remove the files of a store, but not its locks."""
    folder = Path(folder)
    with contextlib.suppress(FileNotFoundError):  # somebody removes the folder itself
        for files in [*folder.glob("files-*"), *folder.glob(f"{REMOVED}*")]:
            remove_at_once(files)


def remove_at_once(folder):
    """Remove a folder: for others in one step, so that none of them finds a part of it.

    Where a folder of open files cannot be renamed, as on Windows, it is kept.
    """
    gone = folder.with_name(f"{REMOVED}{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


class PackedStore:
    """Entries packed into a few arrays, to be made once and sent to other machines.

    The object stores of clusters pass NumPy arrays to processes without copying them.

    Parameters
    ----------
    keys : list of bytes
        Keys of 16 bytes.
    entries : list of (ndarray, int)
        One for each key.
    """

    def __init__(self, keys, entries):
        positions = _first_positions(keys, {})
        rows = [entries[i] for i in positions]
        self.keys = np.array([keys[i] for i in positions], "V16")
        self.ends = np.cumsum([len(array) for array, _ in rows], dtype=np.int64)
        self.extras = np.array([extra for _, extra in rows], np.int64)
        self.flat = np.concatenate([array for array, _ in rows])

    @functools.cached_property
    def _places(self):
        return {key: i for i, key in enumerate(self.keys.tolist())}

    def __getstate__(self):
        """Return the arrays only: `_places` is computed again where it is needed."""
        return {name: value for name, value in vars(self).items() if name != "_places"}

    def find(self, keys):
        """Return the entry of each key, or None where there is none."""
        return [self._entry(self._places.get(key)) for key in keys]

    def _entry(self, i):
        if i is None:
            return None
        start = self.ends[i - 1] if i else 0
        return self.flat[start : self.ends[i]], int(self.extras[i])


def _first_positions(keys, known):
    first: dict = {}
    for i, key in enumerate(keys):
        if key not in known:
            first.setdefault(key, i)
    return list(first.values())
