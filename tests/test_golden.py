"""Folders of all versions of the formats are read as they were meant."""

import json
from pathlib import Path

import numpy as np
import pytest

from skfocal import BertFocalClassifier, OnnxClassifier, persistence
from skfocal.serving import _format

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("version", range(1, persistence.FORMAT_VERSION + 1))
def test_saved_folder_answers_as_recorded(version):
    assert_answers(BertFocalClassifier.from_pretrained(GOLDEN / f"folder-{version}"), version)


@pytest.mark.parametrize("version", range(1, _format.FORMAT_VERSION + 1))
def test_exported_folder_answers_as_recorded(version):
    assert_answers(OnnxClassifier(GOLDEN / f"onnx-{version}"), version)


def assert_answers(clf, version):
    recorded = json.loads((GOLDEN / f"answers-{version}.json").read_text())
    expected = recorded["answers"]
    assert clf.predict(recorded["texts"]).tolist() == expected["predict"]
    for name in ("predict_proba", "decision_function"):
        values = getattr(clf, name)(recorded["texts"])
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
