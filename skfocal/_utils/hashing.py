"""Short keys computed from arbitrary values."""

from hashlib import blake2b


def digest(*parts):
    """Return a 16-byte key of str, bytes and other values, which are hashed by their ``str``.

    A contiguous memoryview counts as its bytes, which are not copied.
    """
    h = blake2b(digest_size=16)
    for part in parts:
        is_raw = isinstance(part, bytes | memoryview)
        raw = memoryview(part if is_raw else str(part).encode("utf-8", "surrogatepass"))
        h.update(raw.nbytes.to_bytes(8, "little"))
        h.update(raw)
    return h.digest()
