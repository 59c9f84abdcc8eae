"""The code blocks of the documentation run as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

import skfocal
from skfocal.losses import FocalLoss

DOCS = Path(__file__).parents[1] / "docs"

ROOT = DOCS.parent


def blocks_of(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


def run(path, scope):
    for block in blocks_of(path):
        exec(compile(block, path.name, "exec"), scope)
    return scope


@pytest.fixture(scope="module")
def headless(tiny, tmp_path_factory):
    """Folder of the tiny encoder without a head, as MiniLM's is."""
    from transformers import AutoTokenizer, BertModel

    folder = str(tmp_path_factory.mktemp("headless"))
    BertModel.from_pretrained(tiny).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.fixture
def four_classes(headless, monkeypatch):
    """Texts and labels for the blocks, and a tiny encoder in MiniLM's place."""
    monkeypatch.setattr(skfocal, "fetch_minilm", lambda: headless, raising=False)
    return texts_of_four_classes()


def texts_of_four_classes(crop=5, earn=7, ship=5, tea=5):
    words = {"crop": "wheat corn", "earn": "profit dividend", "ship": "port vessel", "tea": "leaf"}
    counts = {"crop": crop, "earn": earn, "ship": ship, "tea": tea}
    X = [f"{words[c]} the of {i}" for c in words for i in range(counts[c])]
    return X, np.repeat(list(counts), list(counts.values()))


def test_answers_to_the_three_questions_run(four_classes):
    X, y = four_classes
    assert len(blocks_of(DOCS / "questions.md")) == 12
    scope = run(DOCS / "questions.md", {"X": X, "y": y})
    clf = scope["clf"].set_params(proba="reweighted")
    expected = clf.predict_proba(X) / clf.effective_class_weight_
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scope["natural"], expected, rtol=1e-6)


# With tests of their own, or with what runs nowhere but on a cluster.
APART = {"questions.md", "persistence.md", "grid-search.md", "devices.md", "trackers.md"}
PAGES = sorted(path.name for path in DOCS.glob("*.md") if blocks_of(path))


WITH_AN_EXPORT = pytest.param("serving.md", marks=pytest.mark.slow)  # which takes seconds
OTHERS = [page for page in PAGES if page not in {*APART, "from-your-loop.md", "serving.md"}]


@pytest.mark.parametrize("page", [*OTHERS, WITH_AN_EXPORT])
def test_blocks_of_a_page_run(page, four_classes, capsys, tmp_path, monkeypatch):
    X, y = four_classes
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(skfocal, "fetch_reuters", lambda *args, **kwargs: (X, y), raising=False)
    run(DOCS / page, {"X": X, "y": y})


def test_the_batcher_of_the_page_on_serving_answers(onnx_folder, tmp_path, monkeypatch, capsys):
    exported, served = blocks_of(DOCS / "serving.md")
    assert exported.endswith('clf.to_onnx("served")\n')
    (tmp_path / "served").symlink_to(onnx_folder)
    monkeypatch.chdir(tmp_path)
    scope = {"X": ["win money prize cash", "lunch meeting project"]}
    exec(compile(served, "serving.md", "exec"), scope)
    labels = skfocal.OnnxClassifier(onnx_folder).predict(scope["X"]).tolist()
    assert scope["future"].result()["labels"] == labels
    assert capsys.readouterr().out == f"{labels}\n"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["grid-search.md", "devices.md"])
def test_first_block_of_a_page_with_clusters_runs(page, four_classes, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    X, y = four_classes
    scope = {"X_text": X, "y": y}
    exec(compile(blocks_of(DOCS / page)[0], page, "exec"), scope)
    assert "BertFocalClassifier" in scope


def test_the_block_on_scorers_runs(four_classes):
    X, y = four_classes
    scope = {"X_text": X, "y": y, "fetch_minilm": skfocal.fetch_minilm}
    scope["BertFocalClassifier"] = skfocal.BertFocalClassifier
    (block,) = [b for b in blocks_of(DOCS / "grid-search.md") if "neg_log_loss_scorer" in b]
    with pytest.warns(UserWarning, match="no document of 1 declared"):
        exec(compile(block, "grid-search.md", "exec"), scope)


@pytest.mark.slow
def test_the_block_on_many_candidates_runs(four_classes):
    X, y = four_classes
    scope = {"X_text": X, "y": y, "np": np, "fetch_minilm": skfocal.fetch_minilm}
    scope["BertFocalClassifier"] = skfocal.BertFocalClassifier
    (block,) = [b for b in blocks_of(DOCS / "grid-search.md") if "HalvingGridSearchCV(" in b]
    exec(compile(block.replace("freeze=3", "freeze=1"), "grid-search.md", "exec"), scope)
    search = scope["search"]
    assert (search.n_resources_, search.n_candidates_) == ([1, 8], [32, 4])
    assert search.best_params_["max_epochs"] == 8
    assert len(search.best_estimator_.history_) == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(experimental|optuna.terminator)")
def test_blocks_on_optuna_run(four_classes):
    pytest.importorskip("optuna_integration")
    X, y = four_classes
    scope = {"X_text": X, "y": y, "fetch_minilm": skfocal.fetch_minilm}
    scope["BertFocalClassifier"] = skfocal.BertFocalClassifier
    blocks = [block for block in blocks_of(DOCS / "grid-search.md") if "optuna" in block]
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "grid-search.md", "exec"), scope)
    assert scope["search"].n_trials_ == 10 and len(scope["study"].trials) == 20


def test_loops_of_packages_that_are_not_needed_are_python():
    blocks = re.findall(r"^```py\n(.*?)^```", (DOCS / "from-your-loop.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "from-your-loop.md", "exec")


# How the loops by hand write what the estimator has under these names.
SETTINGS = {
    "max_epochs": r"(?:range\((?=\d+\))|epochs\W+)(\d+)",
    "batch_size": r"(?:DataLoader\(\s*rows,\s*|batch_size\W+)(\d+)",
    "lr": r"(?:\blr|learning_rate)\W+([\d.e-]+)",
    "max_length": r"max_(?:seq_)?length\W+(\d+)",
}


def columns_of(section):
    """Return the first blocks of the left and of the right column of a section of the loops."""
    text = (DOCS / "from-your-loop.md").read_text().partition(f"## From {section}\n")[2]
    return re.findall(r"^:::\{grid-item\}\n.*?^```py(?:thon)?\n(.*?)^```", text, re.M | re.S)[:2]


@pytest.fixture(scope="module")
def loops(headless, tmp_path_factory):
    """The names that the page of the loops has after each block, and the batches of the first."""
    loops, batches, plain = {}, [], cross_entropy
    X, y = texts_of_four_classes(8, 20, 6, 5)  # enough for the loss to fall
    scope = {"X": X, "y": y}

    def recorded(logits, target, **kwargs):
        logits.register_hook(lambda grad: batches.append((logits, target, grad)))
        return plain(logits, target, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(tmp_path_factory.mktemp("loops"))
        patch.setattr(skfocal, "fetch_minilm", lambda: headless, raising=False)
        for block in blocks_of(DOCS / "from-your-loop.md"):
            torch.manual_seed(0)
            with patch.context() as inner:
                if block == columns_of("plain PyTorch")[0]:
                    inner.setattr("torch.nn.functional.cross_entropy", recorded)
                exec(compile(block, "from-your-loop.md", "exec"), scope)
            loops[block] = scope.copy()
    return loops, batches


@pytest.fixture
def after(loops):
    """Return a function that gives the names that the page has after a block."""
    return lambda block: loops[0][block]


def balanced(y):
    weight = compute_class_weight("balanced", classes=np.unique(y), y=y)
    return torch.tensor(weight, dtype=torch.float)


def a_batch():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def test_the_loop_of_plain_pytorch_minimises_the_focal_loss(loops, after):
    _, batches = loops
    by_hand = after(columns_of("plain PyTorch")[0])
    focal = FocalLoss(2.0, weight=balanced(by_hand["y"]))
    assert len(batches) == 4 * 3
    for logits, target, grad in batches:
        logits = logits.detach().requires_grad_()
        loss = focal(logits, target)
        torch.testing.assert_close(grad, torch.autograd.grad(loss, logits)[0])
    torch.testing.assert_close(by_hand["loss"].mean(), loss)
    assert len(by_hand["by_hand"]) == len(by_hand["X"])
    assert set(by_hand["by_hand"]) <= set(by_hand["y"])


def test_the_loop_of_skorch_minimises_the_weighted_cross_entropy(after):
    by_hand = after(columns_of("skorch")[0])
    wanted = cross_entropy(*a_batch(), weight=balanced(by_hand["y"]))
    torch.testing.assert_close(by_hand["net"].criterion_(*a_batch()), wanted)
    losses = by_hand["net"].history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert len(by_hand["by_hand"]) == len(by_hand["X"])
    assert set(by_hand["by_hand"]) <= set(by_hand["y"])


@pytest.mark.parametrize(
    "section, gamma",
    [
        ("plain PyTorch", 2.0),
        ("skorch", None),
        ("transformers' Trainer", 2.0),
        ("simpletransformers", None),
    ],
)
def test_skfocal_does_what_the_loop_by_hand_does(section, gamma, after):
    left, right = columns_of(section)
    by_hand = after(right)
    clf = by_hand["clf"]
    for name, pattern in SETTINGS.items():
        written = {float(number) for number in re.findall(pattern, left)}
        assert (written or {None}) == {getattr(clf, name)}, name
    weight = balanced(by_hand["y"])
    focal = FocalLoss(2.0, weight=weight)
    wanted = focal(*a_batch()) if gamma else cross_entropy(*a_batch(), weight=weight)
    torch.testing.assert_close(clf.loss_(*a_batch()), wanted)
    assert by_hand["with_skfocal"].tolist() == clf.predict(by_hand["X"]).tolist()


def test_blocks_of_the_loops_run_one_after_the_other(loops):
    names, _ = loops
    assert len(names) == len(blocks_of(DOCS / "from-your-loop.md")) == 10
    assert len([*names.values()][-1]["scores"]) == 2


@pytest.mark.slow
def test_blocks_on_saving_run(four_classes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    X, y = four_classes
    assert len(blocks_of(DOCS / "persistence.md")) == 4
    scope = run(DOCS / "persistence.md", {"X": X, "y": y})
    labels = [row["label"] for row in scope["classify"](X, truncation=True)]
    assert labels == scope["served"].predict(X).tolist() == scope["clf"].predict(X).tolist()


def test_blocks_of_the_readme_run(four_classes, monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    X, y = four_classes
    monkeypatch.setattr(skfocal, "fetch_reuters", lambda *args, **kwargs: (X, y), raising=False)
    scope = run(ROOT / "README.md", {})
    best = max(scope["search"].cv_results_["mean_test_score"])
    assert scope["search"].best_score_ == best > 0
    q = scope["logits"].softmax(1).gather(1, scope["target"][:, None])[:, 0]
    expected = (scope["class_weights"][scope["target"]] * (1 - q) ** 2 * -q.log()).mean()
    torch.testing.assert_close(scope["loss"], expected)


def anchors_of(path):
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_links_between_the_pages_lead_somewhere():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    n_anchors = 0
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            name, _, anchor = link.partition("#")
            if "/generated/" in name:
                continue  # the build writes it, and fails without it
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name} links to {link}"
            if anchor:
                n_anchors += 1
                assert anchor in anchors_of(target), f"{page.name} links to {link}"
    assert n_anchors > 3


def rows_of(path, columns):
    """Return the cells of the rows of all tables in a page, as text without emphasis."""
    for line in path.read_text().splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns:
            yield cells


def test_decisions_quoted_in_the_guide_are_those_measured():
    measured = {}
    for name, decision, *rest in rows_of(DOCS / "benchmarks" / "decisions-r52.md", 7):
        measured[name, decision] = rest[3].split(" ±")[0]
    quoted = [row for row in rows_of(DOCS / "decisions.md", 4) if row[1][:1].isdigit()]
    assert len(quoted) == 6
    for name, *values in quoted:
        assert values == [measured[name, d] for d in ("argmax", "prior", "tuned")], name


# What the README calls otherwise than the table.
MEASURED_AS = {
    'weighted cross-entropy (`alpha="balanced"`)': "weighted cross-entropy",
    "focal (`gamma=2`)": "focal",
    'focal + `alpha="balanced"': "focal + balanced alpha",
    'cross-entropy, `sampler="balanced"': "balanced sampler",
    'cross-entropy, `sampler="sqrt"': "sqrt sampler",
    'pooling="mean"`, cross-entropy, `refit_head="balanced"': "mean, cross-entropy, refit",
    'pooling="mean"`, `sampler="sqrt"': "mean, sqrt sampler",
    'pooling="mean"`, `sampler="sqrt"`, `refit_head="balanced"': "mean, sqrt sampler, refit",
}


def test_quality_quoted_in_the_readme_is_that_measured():
    measured = {row[0]: row for row in rows_of(DOCS / "benchmarks" / "quality-r52-short.md", 9)}
    quoted = [row for row in rows_of(ROOT / "README.md", 4) if row[1][:1].isdigit()]
    assert len(quoted) == len(measured) - 2 == 11  # without the two rows of the head
    for name, *cells in quoted:
        row = measured[MEASURED_AS.get(name, name)]
        assert cells == [row[i].removesuffix(" ± 0.0") for i in (2, 3, 5)], name


def test_speed_quoted_in_the_readme_is_that_measured():
    measured = {row[0]: row for row in rows_of(DOCS / "benchmarks" / "speed.md", 7)}
    quoted = [row for row in rows_of(ROOT / "README.md", 3) if row[-1][:1].isdigit()]
    assert len(quoted) == 8
    for name, training, prediction in quoted:
        assert [training, prediction] == [measured[name][i].split(" (")[0] for i in (2, 4)], name
