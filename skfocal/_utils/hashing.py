"""One short key for any values."""

from hashlib import blake2b


def digest(*parts):
    """Return a key of 16 bytes for str, bytes and whatever prints as itself."""
    h = blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return h.digest()
