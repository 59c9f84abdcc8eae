"""The contenders of speed.py; each runs in its own process. entrants.py has more.

    python contenders.py NAME

reads a line of JSON with the settings, then one command per line, and answers each with a line. It
also runs in the peers' environment, where skfocal is not installed. So documents, labels and the
model's folder come through the pipe, and only the contenders that need a heavy package import it.
"""

import contextlib
import ctypes
import gc
import json
import math
import os
import random
import resource
import sys
import time
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

# Settings of the trainings that the benchmarks compare.
TRAINING = {
    "batch_size": 16,
    "predict_batch_size": 64,
    "lr": 2e-4,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "clip": 1.0,
    "precision": "float32",
}
PACKAGES = ("torch", "transformers", "skorch", "simpletransformers", "scikit-learn")


class Contender:
    """Train on texts and labels, then predict labels.

    `settings` has model, max_length, epochs, batch_size, predict_batch_size, lr, weight_decay,
    warmup, clip, device and precision; only contenders with such an option use the latter.
    """

    peer = False  # whether it needs the peers' environment
    settings: SimpleNamespace

    def prepare(self):
        """Import what the contender needs; this is not timed."""

    def fit(self, texts, labels, seed):
        """Read the pretrained weights from the disk and train."""
        raise NotImplementedError

    def predict(self, texts, precision=None):
        """Return a label for each text."""
        raise NotImplementedError

    def answers(self, texts):
        """Return ``{"proba": array}``, or without probabilities ``{"predicted": codes}``.

        The columns and codes are those of `classes`. Only the contenders of entrants.py have this.
        """
        raise NotImplementedError

    def forget(self):
        """Drop the last model, so that it does not count in the next peak of memory."""
        for name in [name for name in vars(self) if name != "settings"]:
            delattr(self, name)

    def encode_labels(self, labels):
        """Store the classes; return integer codes, or an indicator of lists of labels."""
        import numpy as np

        if not isinstance(labels[0], str):
            from sklearn.preprocessing import MultiLabelBinarizer

            binarizer = MultiLabelBinarizer()
            indicator = binarizer.fit_transform(labels).astype(np.float32)
            self.classes = binarizer.classes_
            return indicator
        self.classes, codes = np.unique(labels, return_inverse=True)
        return codes.astype(np.int64)

    def n_updates(self, n_documents):
        """Return how often a training updates the weights."""
        return self.settings.epochs * math.ceil(n_documents / self.settings.batch_size)

    def share_of_lr(self, n_documents):
        """Return the linear schedule with warm-up as a function of the update's number."""
        n_updates = self.n_updates(n_documents)
        n_warmup = math.ceil(self.settings.warmup * n_updates)

        def share(step):
            if step < n_warmup:
                return step / n_warmup
            return max(0.0, (n_updates - step) / max(1, n_updates - n_warmup))

        return share


class BareLoop(Contender):
    """A loop as you would write it: sorted by length, each batch padded to its longest."""

    dropout: float | None = None  # None keeps the configuration's

    def prepare(self):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

        torch.get_num_threads()

    def _load(self):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        changes = {}
        if self.dropout is not None:
            names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
            changes = dict.fromkeys(names, self.dropout)
        self.tokenizer = AutoTokenizer.from_pretrained(self.settings.model)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            self.settings.model, num_labels=len(self.classes), **changes
        ).to(self.settings.device)

    def _batches(self, texts, size):
        """Return pairs of row numbers and padded inputs, longest first."""
        rows = self.tokenizer(texts, truncation=True, max_length=self.settings.max_length)
        ids = rows["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        return [
            (part, self.tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt"))
            for part in parts
        ]

    def fit(self, texts, labels, seed):
        import torch

        settings = self.settings
        codes = torch.from_numpy(self.encode_labels(labels)).to(settings.device)
        self._load()
        batches = self._batches(texts, settings.batch_size)
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.share_of_lr(len(texts)))
        self.model.train()
        for _ in range(settings.epochs):
            random.shuffle(batches)
            for rows, inputs in batches:
                logits = self.model(**inputs.to(settings.device)).logits
                torch.nn.functional.cross_entropy(logits, codes[rows]).backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    def predict(self, texts, precision=None):
        import numpy as np
        import torch

        self.model.eval()
        codes = np.zeros(len(texts), int)
        with torch.inference_mode():
            for rows, inputs in self._batches(texts, self.settings.predict_batch_size):
                logits = self.model(**inputs.to(self.settings.device)).logits
                codes[rows] = logits.argmax(1).cpu().numpy()
        return self.classes[codes]


class BareLoopWithoutDropout(BareLoop):
    """The same with every dropout at zero, as skfocal has it."""

    dropout = 0.0


class BareLoopOf32(BareLoopWithoutDropout):
    """The same, predicting 32 documents at a time."""

    def predict(self, texts, precision=None):
        self.settings.predict_batch_size = 32
        return super().predict(texts)


class SkorchRecipe(Contender):
    """The pipeline of skorch's documentation on fine-tuning; pads to max_length."""

    peer = True

    def prepare(self):
        import skorch.hf
        import torch
        from transformers import AutoModelForSequenceClassification

        class BertModule(torch.nn.Module):
            def __init__(self, name, num_labels):
                super().__init__()
                self.bert = AutoModelForSequenceClassification.from_pretrained(
                    name, num_labels=num_labels
                )

            def forward(self, **inputs):
                return self.bert(**inputs).logits

        assert skorch.hf
        type(self).module = BertModule

    def fit(self, texts, labels, seed):
        import torch
        from sklearn.pipeline import Pipeline
        from skorch import NeuralNetClassifier
        from skorch.callbacks import GradientNormClipping, LRScheduler
        from skorch.hf import HuggingfacePretrainedTokenizer

        settings = self.settings
        codes = self.encode_labels(labels)
        schedule = LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=self.share_of_lr(len(texts)),
            step_every="batch",
        )
        net = NeuralNetClassifier(
            self.module,
            module__name=settings.model,
            module__num_labels=len(self.classes),
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=settings.weight_decay,
            lr=settings.lr,
            max_epochs=settings.epochs,
            criterion=torch.nn.CrossEntropyLoss,
            batch_size=settings.batch_size,
            iterator_train__shuffle=True,
            iterator_valid__batch_size=settings.predict_batch_size,
            train_split=None,
            device=settings.device,
            callbacks=[schedule, GradientNormClipping(settings.clip)],
            verbose=0,
        )
        tokenizer = HuggingfacePretrainedTokenizer(settings.model, max_length=settings.max_length)
        self.pipeline = Pipeline([("tokenizer", tokenizer), ("net", net)])
        self.pipeline.fit(texts, codes)

    def predict(self, texts, precision=None):
        return self.classes[self.pipeline.predict(texts)]


class Trainer(Contender):
    """Transformers' Trainer on tokenised datasets, each batch padded to its longest."""

    peer = True
    sampling = "random"

    def prepare(self):
        import datasets
        from transformers import DataCollatorWithPadding, Trainer  # noqa: F401

        datasets.disable_progress_bars()

    def _dataset(self, **columns):
        from datasets import Dataset

        # Without self: datasets would hash the model together with the function.
        tokenizer, max_length = self.tokenizer, self.settings.max_length

        def tokenize(rows):
            return tokenizer(rows["text"], truncation=True, max_length=max_length)

        # Otherwise a second run would find the tokens of the first one in a file.
        return Dataset.from_dict(columns).map(
            tokenize, batched=True, load_from_cache_file=False, remove_columns="text"
        )

    def _arguments(self, seed):
        from transformers import TrainingArguments

        settings = self.settings
        return TrainingArguments(
            output_dir="trainer",
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.predict_batch_size,
            learning_rate=settings.lr,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup,  # below one it is a share
            lr_scheduler_type="linear",
            max_grad_norm=settings.clip,
            train_sampling_strategy=self.sampling,
            seed=seed,
            use_cpu=settings.device == "cpu",
            bf16=settings.precision == "bfloat16",
            dataloader_num_workers=0,
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def fit(self, texts, labels, seed):
        import transformers

        codes = self.encode_labels(labels)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.settings.model)
        self.trainer = transformers.Trainer(
            transformers.AutoModelForSequenceClassification.from_pretrained(
                self.settings.model, num_labels=len(self.classes)
            ),
            self._arguments(seed),
            data_collator=transformers.DataCollatorWithPadding(self.tokenizer),
            train_dataset=self._dataset(text=texts, labels=codes.tolist()),
            processing_class=self.tokenizer,
        )
        self.trainer.train()

    def predict(self, texts, precision=None):
        dataset = self._dataset(text=texts)
        codes = self.trainer.predict(dataset).predictions.argmax(1)
        return self.classes[self._in_order(codes, dataset)]

    def _in_order(self, codes, dataset):
        return codes


class TrainerGrouped(Trainer):
    """The same with documents of like length in a batch."""

    sampling = "group_by_length"

    def _in_order(self, codes, dataset):
        """Undo the grouping, which Trainer also applies in prediction and does not revert."""
        ordered = codes.copy()
        ordered[list(self.trainer._get_eval_sampler(dataset))] = codes
        return ordered


class SimpleTransformers(Contender):
    """ClassificationModel of simpletransformers; pads to max_length."""

    peer = True

    def prepare(self):
        import pandas as pd
        from simpletransformers.classification import ClassificationModel

        assert pd and ClassificationModel

    def fit(self, texts, labels, seed):
        import pandas as pd
        from simpletransformers.classification import ClassificationModel

        settings = self.settings
        codes = self.encode_labels(labels)
        args = {
            "num_train_epochs": settings.epochs,
            "train_batch_size": settings.batch_size,
            "eval_batch_size": settings.predict_batch_size,
            "max_seq_length": settings.max_length,
            "learning_rate": settings.lr,
            "weight_decay": settings.weight_decay,
            "warmup_ratio": settings.warmup,
            "max_grad_norm": settings.clip,
            "fp16": False,
            "use_multiprocessing": False,
            "use_multiprocessing_for_evaluation": False,
            "dataloader_num_workers": 0,
            "no_cache": True,
            "no_save": True,
            "save_steps": -1,
            "save_model_every_epoch": False,
            "save_eval_checkpoints": False,
            "logging_steps": 0,
            "overwrite_output_dir": True,
            "silent": True,
        }
        self.model = ClassificationModel(
            "bert",
            settings.model,
            num_labels=len(self.classes),
            args=args,
            use_cuda=settings.device != "cpu",
        )
        frame = pd.DataFrame({"text": texts, "labels": codes})
        self.model.train_model(frame, show_running_loss=False, verbose=False)

    def predict(self, texts, precision=None):
        return self.classes[self.model.predict(texts)[0]]


class Skfocal(Contender):
    """BertFocalClassifier with its defaults, but for what all share."""

    dropout: float | None = 0.0

    def prepare(self):
        import skfocal

        assert skfocal

    def parameters(self):
        """Return the parameters that the other contenders do not have."""
        return {"pooling": "head", "loss": "cross_entropy", "dropout": self.dropout}  # as theirs

    def fit(self, texts, labels, seed):
        from skfocal import BertFocalClassifier, clear_cache

        settings = self.settings
        clear_cache()  # everybody tokenises and reads the weights each time
        self.model = BertFocalClassifier(
            settings.model,
            max_length=settings.max_length,
            max_epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            warmup=settings.warmup,
            schedule="linear",
            gradient_clip=settings.clip,
            device=settings.device,
            random_state=seed,
            **{"precision": settings.precision, **self.parameters()},
        ).fit(texts, labels)

    def predict(self, texts, precision=None):
        from skfocal import clear_cache

        clear_cache()
        if "predict_precision" in self.model.get_params():
            self.model.set_params(predict_precision=precision)  # None: as in training
        return self.model.predict(texts)


class SkfocalBertDropout(Skfocal):
    """The same with the dropout of BERT's configuration."""

    dropout = None


class SkfocalMean(Skfocal):
    """The same with the mean of the tokens, which is the default for MiniLM."""

    def parameters(self):
        return {**super().parameters(), "pooling": "mean"}


class SkfocalDefaults(Skfocal):
    """The same with skfocal's own loss, pooling and precision."""

    def parameters(self):
        return {"precision": "auto"}


CONTENDERS = {
    "bare loop": BareLoop,
    "bare loop, no dropout": BareLoopWithoutDropout,
    "bare loop, no dropout, predicts 32": BareLoopOf32,
    "skorch recipe": SkorchRecipe,
    "Trainer": Trainer,
    "Trainer, grouped by length": TrainerGrouped,
    "simpletransformers": SimpleTransformers,
    "skfocal, BERT's dropout": SkfocalBertDropout,
    "skfocal": Skfocal,
    "skfocal, mean of the tokens": SkfocalMean,
    "skfocal, defaults": SkfocalDefaults,
}
# Rows that use the model of another row to predict in another precision.
PRECISIONS = {"skfocal, bfloat16": "bfloat16", "skfocal, int8": "int8"}


# -- measuring ---------------------------------------------------------------------------------


def reset_peak():
    """Give freed memory back to the system and reset the peak of resident memory."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory_mib(field):
    """Return VmHWM (the peak) or VmRSS of this process in MiB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def busy_seconds():
    """Return the processor time that all processes have used so far."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    except OSError:
        return time.process_time()
    user, nice, system, _, _, irq, softirq = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def measure(work, *args):
    """Return the result of `work`, and its seconds, memory and load."""
    reset_peak()
    before = memory_mib("VmRSS")
    load = os.getloadavg()[0]
    others = busy_seconds() - time.process_time()
    start = time.perf_counter()
    result = work(*args)
    seconds = time.perf_counter() - start
    others = (busy_seconds() - time.process_time() - others) / seconds
    return result, {
        "seconds": round(seconds, 4),
        "peak_mib": round(memory_mib("VmHWM"), 1),
        "before_mib": round(before, 1),
        "load": load,
        "others": round(max(others, 0.0), 3),  # cores in use by other processes
    }


# -- the process -------------------------------------------------------------------------------


def seed_all(seed):
    """Seed all generators that a contender may use."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def versions(packages=PACKAGES):
    """Return the versions of the packages installed here."""
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def answer(contender, command):
    """Carry out a command; return the answer."""
    if command["do"] == "fit":
        contender.forget()
        seed_all(command["seed"])
        work = (contender.fit, command["texts"], command["labels"], command["seed"])
        return measure(*work)[1]
    if command["do"] == "answer":
        found = {key: value.tolist() for key, value in contender.answers(command["texts"]).items()}
        return found | {"classes": list(map(str, contender.classes))}
    labels, report = measure(contender.predict, command["texts"], command["precision"])
    return report | {"labels": [str(label) for label in labels]}


def start(contender, settings):
    """Return the contender, ready to be timed."""
    contender.settings = SimpleNamespace(**settings)
    contender.prepare()  # before torch, whose threads sleep if skfocal comes first

    import torch
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return contender


def main(contenders=CONTENDERS, packages=PACKAGES):
    """Answer commands until the pipe is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; keep their lines out of the answers

    def send(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    contender = start(contenders[sys.argv[1]](), json.loads(sys.stdin.readline()))
    import torch

    send({"versions": versions(packages), "threads": torch.get_num_threads()})
    for line in sys.stdin:
        try:
            send(answer(contender, json.loads(line)))
        except Exception:
            traceback.print_exc()
            send({"error": traceback.format_exc().strip().splitlines()[-1]})


if __name__ == "__main__":
    main()
