"""Short keys computed from arbitrary values."""

from hashlib import blake2b


def digest(*parts):
    """Return a 16-byte key of str, bytes and other values, which are hashed by their ``str``."""
    h = blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return h.digest()
