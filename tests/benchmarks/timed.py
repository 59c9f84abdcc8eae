"""The contenders of time_to_quality.py; each runs in its own process and is tried as it trains.

    python timed.py

reads a line of JSON with the order, and answers with a line for each point. It also runs in the
peers' environment, where skfocal is not installed, as contenders.py does.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).parent))  # at the end: no file here may hide a package

import contenders  # noqa: E402

MARKS = [round(20 * 1.5**i) for i in range(12)]  # seconds at which the weights are tried
PEERS = {
    "Trainer, grouped by length": contenders.TrainerGrouped,
    "skorch recipe": contenders.SkorchRecipe,
    "simpletransformers": contenders.SimpleTransformers,
}
# Where a contender that is training has its network; skfocal shows it by a callback.
NETWORKS = {
    "Trainer, grouped by length": lambda contender: contender.trainer.model,
    "skorch recipe": lambda contender: contender.pipeline[-1].module_.bert,
    "simpletransformers": lambda contender: contender.model.model,
}


class TimeIsUp(Exception):
    """Ends a training."""


class Clock:
    """Seconds since the process was started, without those in which the clock stood still."""

    def __init__(self, started):
        self.started = started

    def __call__(self):
        return time.time() - self.started

    def stand_still(self, work):
        """Return the result of `work`, which does not count."""
        begin = time.time()
        result = work()
        self.started += time.time() - begin
        return result


def predicted(logits, several):
    """Return the codes of the documents' classes, or for several labels an indicator."""
    return (logits > 0).astype(int).tolist() if several else logits.argmax(1).tolist()


def logits_of(module, batches):
    """Return the logits of tokenised documents."""
    import numpy as np
    import torch

    training, found = module.training, {}
    module.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for rows, inputs in batches:
            output = module(inputs["input_ids"], inputs["attention_mask"])
            logits = getattr(output, "logits", output).float().numpy()
            found |= dict(zip(rows, logits, strict=True))
    module.train(training)
    return np.stack([found[row] for row in range(len(found))])


def watch(contender, network, clock, order, send):
    """Try the weights after the first update beyond each mark."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    marks = list(MARKS)
    batches = clock.stand_still(lambda: contender_batches(order))

    def after_update(*_):
        seconds = clock()
        if marks and seconds >= marks[0]:
            while marks and seconds >= marks[0]:
                marks.pop(0)
            logits = clock.stand_still(lambda: logits_of(network(contender), batches))
            send(seconds, contender.classes, logits)
        if seconds > order["limit"]:
            raise TimeIsUp

    register_optimizer_step_post_hook(after_update)
    return batches


def contender_batches(order):
    """Return the test documents as batches of like length."""
    from transformers import AutoTokenizer

    loop = contenders.BareLoop()
    loop.settings = SimpleNamespace(**order["settings"])
    loop.tokenizer = AutoTokenizer.from_pretrained(order["settings"]["model"])
    return loop._batches(order["test"], 16)


class Skfocal(contenders.Contender):
    """BertFocalClassifier with the parameters of a setting, otherwise its defaults."""

    def __init__(self, parameters):
        self.parameters = parameters

    def prepare(self):
        import skfocal

        assert skfocal

    def fit(self, texts, labels, seed):
        from skorch.callbacks import Callback

        from skfocal import BertFocalClassifier

        class Show(Callback):
            """Lets the contender see the net that is training."""

            def __deepcopy__(self, memo):
                return self

            def on_train_begin(show, net, **kwargs):
                self.net = net

        self.encode_labels(labels)  # of a training that is not over, there are no classes_ yet
        parameters = {"max_length": self.settings.max_length, **self.parameters}
        if largest := parameters.pop("largest", None):
            texts, labels = self.cut(texts, labels, largest, seed)
        self.model = BertFocalClassifier(
            self.settings.model, random_state=seed, callbacks=[Show()], **parameters
        ).fit(texts, labels)

    def cut(self, texts, labels, largest, seed):
        """Return a part of the documents with at most so many of a class."""
        import numpy as np
        from imblearn.under_sampling import RandomUnderSampler

        def counts(y):
            return {label: min(n, largest) for label, n in Counter(y).items()}

        sampler = RandomUnderSampler(sampling_strategy=counts, random_state=seed)
        rows, labels = sampler.fit_resample(np.arange(len(texts))[:, None], np.array(labels))
        return [texts[i] for i in rows[:, 0]], labels


def main():
    """Train as the order on standard input says; answer with a line for each point."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; keep their lines out of the answers

    order = json.loads(sys.stdin.readline())
    clock = Clock(order["started"])
    several = not isinstance(order["labels"][0], str)

    def answer(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def send(seconds, classes, logits):
        codes = predicted(logits, several)
        answer({"seconds": seconds, "classes": list(map(str, classes)), "predicted": codes})

    peer = PEERS.get(order["name"])
    network = NETWORKS.get(order["name"], lambda contender: contender.net.module_)
    contender = peer() if peer else Skfocal(order["parameters"])
    contenders.start(contender, order["settings"])
    contenders.seed_all(order["seed"])
    tried = not order["parameters"] or peer
    batches = watch(contender, network, clock, order, send) if tried else None
    try:
        contender.fit(order["texts"], order["labels"], order["seed"])
    except TimeIsUp:
        answer({"ended": False})
        return
    seconds = clock()
    if tried:
        logits = logits_of(network(contender), batches)
    else:
        logits = contender.model.decision_function(order["test"])
    send(seconds, contender.classes, logits)
    answer({"ended": True})


if __name__ == "__main__":
    main()
