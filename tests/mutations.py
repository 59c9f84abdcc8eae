"""Folders as a crash, a bad disk, a careless editor or an attacker would leave them."""

import hashlib
import json
import os
import struct
import sys
from pathlib import Path

SECRET = "secret.txt"  # beside the folder; nothing in it may lead there

_NUMBERS = [-1, 0, 1, 2, 3, 64, 10**6, 2**31, 10**9, 2**63, 10**30, -(10**30), 0.5, 1e-320, 1e308]
_STRINGS = [
    "", "x", "../secret.txt", "/etc/passwd", "..\\x", "\u0000", "\ud800", "\u202e", "é" * 999,
    "x" * 10_000, "__class__", "builtins.eval", "os.system", "focal", "softmax", "F32", "bert",
]  # fmt: skip
_NESTED = [
    [], {}, [[[[]]]], [None], {"a": {"b": {}}}, {"$array": "../x"}, {"$tensor": "params.alpha"},
    {"$float": "nan"}, {"$items": ["a"], "shape": [10**9], "kind": "U"}, {"$tuple": [1]},
    {"$scalar": 1, "dtype": "<U100000000"}, {"$dict": [[1, 2]]}, {"$array": "attributes._shift"},
    {"__reduce__": ["os.system", ["true"]]}, {"auto_map": {"AutoConfig": "x.Y"}}, [0] * 1000,
]  # fmt: skip
_KEYS = [
    "auto_map", "net_", "__dict__", "predict", "quantization_config", "trust_remote_code", "a",
    "attn_implementation", "_attn_implementation", "num_hidden_layers", "../x", "vocab_file",
    "tokenizer_file", "architectures", "dtype", "torch_dtype", "is_decoder", "net_params", "sha256",
]  # fmt: skip
_DTYPES = ["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "XX", 3]
_SHAPES = [[], [0], [10**9, 10**9], [-1], [1], [2**64], ["x"], None]
_OFFSETS = [[0, 2**64], [0, 2**63 - 1], [0], [4, 0], [-1, 4], None]


def mutate(folder, rng):
    """Change one to three things in a folder; return what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(sorted(folder.iterdir()))
        kinds = [_bytes, _place]
        if path.suffix == ".json":
            kinds = [_json] * 8 + kinds
        elif path.suffix == ".safetensors":
            kinds = [_header] * 6 + kinds
        kind = rng.choice(kinds) if path.is_file() else _place
        done.append(f"{kind.__name__} {path.name}: {kind(path, rng)}")
    # A checksum stops most of these at once: those who mean harm set it right.
    if rng.random() < 0.8:
        done.append(_sums(folder, rng))
    return done


# -- whole files -----------------------------------------------------------------------------


def _bytes(path, rng):
    content = bytearray(path.read_bytes())
    n = len(content)
    where, size = rng.randrange(n + 1), rng.choice([1, 2, 7, 100, n])
    kind = rng.choice(["flip", "cut", "drop", "double", "insert", "empty", "swap", "zeros"])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 4, 32])):
            if n:
                content[rng.randrange(n)] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[where:]
    elif kind == "drop":
        del content[where : where + size]
    elif kind == "double":
        content[where:where] = content[where : where + size]
    elif kind == "insert":
        content[where:where] = rng.randbytes(min(size, 1000))
    elif kind == "zeros":
        content[where : where + size] = bytes(len(content[where : where + size]))
    elif kind == "empty":
        content = b""
    else:
        others = [other for other in sorted(path.parent.iterdir()) if other.is_file()]
        content = rng.choice(others).read_bytes()
    path.write_bytes(content)
    return f"{kind} at {where}, {size}"


def _place(path, rng):
    kind = rng.choice(["delete", "rename", "out", "loop", "inside", "folder", "pipe", "device"])
    if path.is_dir() and not path.is_symlink():
        return "left"
    content = path.read_bytes() if path.is_file() else b""
    path.unlink()
    if kind == "rename":
        (path.parent / rng.choice(["x", path.name.upper(), path.name + ".bak"])).write_bytes(
            content
        )
    elif kind == "out":
        target = path.parent.parent / SECRET
        path.symlink_to(rng.choice([target, Path("..", SECRET), Path("/etc/passwd")]))
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "inside":
        other = path.with_name(f"x{rng.randrange(10**9)}")
        other.write_bytes(content)
        path.symlink_to(other.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    return kind


# -- JSON ------------------------------------------------------------------------------------


def _json(path, rng):
    try:
        value = json.loads(path.read_bytes())
        places = list(_places(value))
        container, key = rng.choice(places)
    except (OSError, ValueError, IndexError, RecursionError):
        return "left"
    kind = rng.choice(["replace"] * 4 + ["near", "near", "delete", "rename", "deep", "swap", "add"])
    if kind == "replace":
        container[key] = rng.choice([rng.choice(_NUMBERS), rng.choice(_STRINGS),
                                     rng.choice(_NESTED), None, True, False])  # fmt: skip
    elif kind == "near":
        container[key] = _near(container[key], rng)
    elif kind == "delete":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[rng.choice(_KEYS)] = container.pop(key)
    elif kind == "add" and isinstance(container, dict):
        container[rng.choice(_KEYS)] = rng.choice([*_NUMBERS, *_STRINGS, *_NESTED])
    elif kind == "swap":
        other, place = rng.choice(places)
        try:
            container[key], other[place] = other[place], container[key]
        except (KeyError, IndexError):
            pass
    elif kind == "deep":
        container[key] = "DEEP"
    text = json.dumps(value)
    if kind == "deep":
        depth = rng.choice([10, 500, 5_000, 100_000])
        shape = rng.choice(["[%s]", '{"a":%s}', '{"$tuple":[%s]}'])
        before, after = shape.split("%s")
        text = text.replace('"DEEP"', before * depth + "1" + after * depth, 1)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return f"{kind} {str(key)[:40]}"


def _places(value):
    """Yield each container and key in it, as often at the top as below."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _near(value, rng):
    """Return something much like a value."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 2 * value, -value, value * 10**6, float(value)])
    if isinstance(value, float):
        return rng.choice([-value, value * 1e6, 0.0, int(value) if abs(value) < 1e9 else 1])
    if isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value.upper(), "../" + value, value * 100])
    if isinstance(value, list):
        return rng.choice([value[:-1], value * 2, value[::-1], value + [None]])
    return dict(list(value.items())[:-1])


# -- safetensors -------------------------------------------------------------------------------


def _header(path, rng):
    try:
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        names = [name for name in header if name != "__metadata__"]
        name = rng.choice(names)
        entry = header[name]
        kind = rng.choice(["dtype", "shape", "offsets", "name", "add", "delete", "length", "meta"])
        if kind == "dtype":
            entry["dtype"] = rng.choice(_DTYPES)
        elif kind == "shape":
            entry["shape"] = rng.choice([*_SHAPES, entry["shape"][::-1], [*entry["shape"], 1]])
        elif kind == "offsets":
            begin, end = entry["data_offsets"]
            entry["data_offsets"] = rng.choice([*_OFFSETS, [begin, end + 4], [0, end]])
        elif kind == "name":
            header[rng.choice(["../x", "", "x" * 9999, "\u0000", rng.choice(names)])] = entry
        elif kind == "add":
            header["x"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        elif kind == "delete":
            del header[name]
        elif kind == "meta":
            header["__metadata__"] = rng.choice([{"format": "tf"}, {"a": 1}, [], None, "x"])
        raw = json.dumps(header).encode()
        length = len(raw)
        if kind == "length":
            length = rng.choice([0, 1, length - 1, length + 1, 2**32, 2**63, 2**64 - 1])
        path.write_bytes(struct.pack("<Q", length) + raw + content[8 + size :])
    except (OSError, ValueError, struct.error, IndexError, KeyError, TypeError):
        return "left"
    return f"{kind} {name[:40]}"


def _sums(folder, rng):
    """Write the checksums of what is there into the file that has them, or leave them out."""
    for path in filter(Path.is_file, folder.glob("skfocal*.json")):
        try:
            head = json.loads(path.read_bytes())
            sums = head["sha256"]
            for name in [name for name in sums if (folder / name).is_file()]:
                sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if rng.random() < 0.2 and folder.name != "onnx":
                del head["sha256"]
            path.write_text(json.dumps(head), encoding="utf-8", errors="surrogatepass")
        except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
            return "checksums left"
    return "checksums set right"


# -- what was opened ---------------------------------------------------------------------------

OPENED: list = []
_watching = False


def watch():
    """Record from now on which files the interpreter opens."""
    global _watching
    if not _watching:
        sys.addaudithook(lambda event, args: OPENED.append(args[0]) if event == "open" else None)
        _watching = True
