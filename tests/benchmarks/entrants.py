"""The contenders of contest.py; each runs in its own process, as those of contenders.py do.

    python entrants.py NAME

They take one label or several per document and answer with probabilities where they have some.
"""

import math
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # at the end: no file here may hide a package

import contenders  # noqa: E402

PACKAGES = (
    "torch",
    "transformers",
    "scikit-learn",
    "skorch",
    "sentence-transformers",
    "setfit",
    "model2vec",
)


# -- linear models -----------------------------------------------------------------------------


class Linear(contenders.Contender):
    """A linear classifier with balanced class weights on vectors of the texts."""

    def vectorizer(self):
        """Return a transformer from texts to vectors."""
        raise NotImplementedError

    def classifier(self, seed):
        """Return a classifier of vectors."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(class_weight="balanced", max_iter=1000, random_state=seed)

    def prepare(self):
        import sklearn.feature_extraction.text
        import sklearn.multiclass
        import sklearn.svm

        assert sklearn

    def fit(self, texts, labels, seed):
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline

        codes, classifier = self.encode_labels(labels), self.classifier(seed)
        if codes.ndim == 2:
            classifier = OneVsRestClassifier(classifier)
        self.model = make_pipeline(self.vectorizer(), classifier).fit(texts, codes)

    def answers(self, texts):
        if hasattr(self.model, "predict_proba"):
            return {"proba": self.model.predict_proba(texts)}
        return {"predicted": self.model.predict(texts)}


class TfidfLogistic(Linear):
    """Logistic regression on word counts."""

    def vectorizer(self):
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(sublinear_tf=True)


class TfidfSvm(TfidfLogistic):
    """A linear support vector machine on word counts; it has no probabilities."""

    def classifier(self, seed):
        from sklearn.svm import LinearSVC

        return LinearSVC(class_weight="balanced", random_state=seed)


class Frozen(Linear):
    """Logistic regression on the embeddings of sentence-transformers, which stay as they are."""

    peer = True

    def prepare(self):
        super().prepare()
        import sentence_transformers

        assert sentence_transformers

    def vectorizer(self):
        from sentence_transformers import SentenceTransformer
        from sklearn.preprocessing import FunctionTransformer

        settings = self.settings
        encoder = SentenceTransformer(settings.model, device=settings.device)
        encoder.max_seq_length = settings.max_length
        options = {"batch_size": settings.predict_batch_size, "show_progress_bar": False}
        return FunctionTransformer(encoder.encode, kw_args=options)


def static_model(model):
    """Return the folder of model2vec's static embeddings, distilled at first use: 20 seconds."""
    folder = Path(f"{model}-model2vec-{metadata.version('model2vec')}")
    if not folder.exists():
        from model2vec.distill import distill

        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            unfinished = Path(work, folder.name)
            distill(str(model), device="cpu").save_pretrained(unfinished)
            if not folder.exists():  # another process may have been faster
                os.replace(unfinished, folder)
    return folder


class Static(Linear):
    """Logistic regression on the static embeddings."""

    peer = True

    def prepare(self):
        super().prepare()
        import model2vec

        assert model2vec
        static_model(self.settings.model)  # as the pretrained weights, it is there before

    def vectorizer(self):
        from model2vec import StaticModel
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(
            StaticModel.from_pretrained(static_model(self.settings.model)).encode
        )


# -- trained embeddings ------------------------------------------------------------------------


class StaticTuned(contenders.Contender):
    """model2vec's own classifier, which trains the static embeddings, with balanced weights."""

    peer = True

    def prepare(self):
        import model2vec.train

        assert model2vec.train
        static_model(self.settings.model)

    def fit(self, texts, labels, seed):
        from model2vec import StaticModel
        from model2vec.train import StaticModelForClassification

        static = StaticModel.from_pretrained(static_model(self.settings.model))
        self.model = StaticModelForClassification.from_static_model(model=static)
        self.model.fit(texts, labels, class_weight="balanced", device="cpu", random_seed=seed)
        self.classes = self.model.classes_

    def answers(self, texts):
        return {"proba": self.model.predict_proba(texts)}


class SetFit(contenders.Contender):
    """Contrastive training on pairs of documents, then a balanced logistic regression.

    `settings.passes` says how often the pairs read a document; SetFit's own default is every pair,
    which is out of reach beyond a few dozen documents.
    """

    peer = True

    def prepare(self):
        import datasets
        import setfit

        datasets.disable_progress_bars()
        assert setfit

    def _arguments(self, n_documents, seed):
        from setfit import TrainingArguments

        settings = self.settings
        return TrainingArguments(
            output_dir="setfit",
            batch_size=settings.batch_size,
            max_steps=math.ceil(settings.passes * n_documents / (2 * settings.batch_size)),
            body_learning_rate=settings.lr,
            seed=seed,
            show_progress_bar=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
        )

    def fit(self, texts, labels, seed):
        from datasets import Dataset
        from setfit import SetFitModel, Trainer

        codes = self.encode_labels(labels)
        self.model = SetFitModel.from_pretrained(
            self.settings.model,
            multi_target_strategy="one-vs-rest" if codes.ndim == 2 else None,
            head_params={"class_weight": "balanced", "max_iter": 1000},
            device=self.settings.device,
        )
        self.model.model_body.max_seq_length = self.settings.max_length
        dataset = Dataset.from_dict({"text": texts, "label": codes.astype(int).tolist()})
        Trainer(self.model, self._arguments(len(texts), seed), train_dataset=dataset).train()

    def answers(self, texts):
        return {"proba": self.model.predict_proba(texts, as_numpy=True)}


# -- fine-tuning -------------------------------------------------------------------------------


class SkorchRecipe(contenders.SkorchRecipe):
    """With probabilities."""

    def answers(self, texts):
        return {"proba": self.pipeline.predict_proba(texts)}


class Trainer(contenders.Trainer):
    """With probabilities; binary cross-entropy if a document has several labels."""

    def fit(self, texts, labels, seed):
        self.several = not isinstance(labels[0], str)  # transformers itself goes by their type
        super().fit(texts, labels, seed)

    def answers(self, texts):
        from scipy.special import expit, softmax

        logits = self.trainer.predict(self._dataset(text=texts)).predictions
        return {"proba": expit(logits) if self.several else softmax(logits, axis=1)}


class Skfocal(contenders.Skfocal):
    """BertFocalClassifier with ``settings.parameters``."""

    def parameters(self):
        return self.settings.parameters

    def fit(self, texts, labels, seed):
        super().fit(texts, labels, seed)
        self.classes = self.model.classes_

    def answers(self, texts):
        return {"proba": self.model.predict_proba(texts)}


CONTENDERS = {
    "TF-IDF, SVM": TfidfSvm,
    "TF-IDF, logistic": TfidfLogistic,
    "frozen MiniLM": Frozen,
    "model2vec": Static,
    "model2vec, tuned": StaticTuned,
    "SetFit": SetFit,
    "skorch recipe": SkorchRecipe,
    "Trainer": Trainer,
    "skfocal": Skfocal,
}


if __name__ == "__main__":
    contenders.main(CONTENDERS, PACKAGES)
