"""What is done only on CUDA, with the calls to it recorded, since the suite runs without.

`BRANCHES` lists every place that asks for a kind of device, and the tests that reach it, or why
none can. Those that compare results run on the device of simulated_device.py, which
has autocast, a limited memory and deterministic algorithms of its own: there, precision, pinned
memory and the choice of a device, which are CUDA's by name, cannot be seen.
"""

import ast
import contextlib
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_encoders import FAMILIES
from transformers import AutoModelForSequenceClassification

from skfocal._data.batches import TokenDataset
from skfocal._encoder import fast_dropout, promises
from skfocal._encoder.float32_attention import Float32Attention
from skfocal._encoder.promises import best_precision
from skfocal._estimator import advice, plan
from skfocal._runtime import devices, process_group
from skfocal._training import inference, snapshot, strategies
from skfocal._training.loop import TrainingLoop
from skfocal.callbacks import ClassLoss
from skfocal.data_audit import _neighbours
from skfocal.losses import CustomLoss

HERE = Path(__file__).parent
# Strings that name a kind of device.
KIND = re.compile(r"(cpu:gloo,)?(cpu|cuda|mps)(:|$)")
# Place: the tests that reach it.
BRANCHES = {
    "_encoder/fast_dropout.py _attention": "dropout_on_a_device",
    "_encoder/fast_dropout.py _dropout": "dropout_on_a_device",
    "_encoder/float32_attention.py Float32Attention.__torch_function__": "within_autocast_is_that",
    "_encoder/frozen_layers.py ": "less_memory_gives",
    "_encoder/frozen_layers.py FrozenLayers.__init__": "less_memory_gives",
    "_encoder/known_mask.py to_device": "no_training_step_waits results_are_those",
    "_encoder/model_files.py _read_pickled": "files are read on the CPU for any device",
    "_encoder/quantization.py reduced_copy": "int8_elsewhere_than_on",
    "_estimator/advice.py warn_bfloat16": "bfloat16_warns_on_a_cpu_alone",
    "_estimator/parameters.py _check_net_params": "a probe of the parameters, on the CPU always",
    "_estimator/pickling.py _device_at_hand": "fitted_on_cuda_it_unpickles",
    "_estimator/plan.py _try_loss": "a_loss_module_is_tried",
    "_runtime/devices.py fork_generators": "a_seed_is_that_of_the_device",
    "_runtime/devices.py has_fast_bfloat16": "is_fast_on_a_gpu a_mac_trains the_audit_reads",
    "_runtime/devices.py hold_device": "takes_no_turns auto_on_cuda_holds more_jobs_wait",
    "_runtime/devices.py resolve_device": "auto_prefers_cuda",
    "_runtime/devices.py seed_generators": "of_this_device_alone of_a_mac",
    "_runtime/devices.py seeded": "a_seed_is_that_of_the_device of_a_mac",
    "_runtime/process_group.py Processes.device": "each_process_takes",
    "_runtime/process_group.py _connect": "processes_speak_through_nccl",
    "_runtime/processors.py _quota": "a folder of the system, no device",
    "_training/inference.py prediction_batches": "predictions_elsewhere_take",
    "_training/loop.py ": "no_training_step_waits",
    "_training/loop.py TrainingLoop._fast_ways": "dropout_on_a_device",
    "_training/net.py FocalNet.loader": "batches_for_cuda",
    "_training/snapshot.py _cuda_state": "the_state_of_the_generator",
    "_training/snapshot.py _restore_position": "is_restored_on_cuda_alone",
    "_training/snapshot.py capture": "the_state_of_the_generator",
    "_training/strategies.py DDP.__init__": "the_module_of_a_process",
    "callbacks.py ClassLoss.settle": "double_precision_where_there_is",
    "data_audit/_neighbours.py Encoder._embedded": "the_audit_reads",
    "explanation/_gradients.py ": "explanation_is_that_of_the_cpu",
    "explanation/_gradients.py Document.logits": "explanation_is_that_of_the_cpu",
    "explanation/_gradients.py integrated_gradients": "explanation_is_that_of_the_cpu",
}


def places(tree):
    """Return where code names a kind of device, or asks torch.cuda or torch.mps."""
    found = set()

    def visit(node, inside):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inside = (*inside, node.name)
        asks = isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps")
        text = node.value if isinstance(node, ast.Constant) else None
        if asks or (isinstance(text, str) and KIND.match(text)):
            found.add(".".join(inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, ())
    return found


def test_every_place_that_asks_for_a_device_is_listed():
    package = HERE.parent / "skfocal"
    found = {
        f"{path.relative_to(package).as_posix()} {place}"
        for path in package.rglob("*.py")
        for place in places(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == BRANCHES.keys()


def test_every_listed_test_is_there():
    source = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    names = " ".join(re.findall(r"^def (test_\w+)", source, re.MULTILINE))
    tests = [part for parts in BRANCHES.values() if "_" in parts for part in parts.split()]
    assert [part for part in tests if part not in names] == []


@pytest.fixture
def calls(monkeypatch):
    """Let torch claim to have two CUDA devices; return what is asked of them, in order."""
    asked = []

    def record(name, answer=None):
        def call(*args):
            asked.append((name, *args))
            return answer

        return call

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    state = torch.arange(3, dtype=torch.uint8)
    for name, answer in (("get_rng_state", state), ("set_rng_state", None), ("set_device", None)):
        monkeypatch.setattr(torch.cuda, name, record(name, answer))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return asked


def test_a_seed_is_that_of_the_device_too_and_both_generators_are_restored(monkeypatch):
    blocks = []

    @contextlib.contextmanager
    def fork_rng(devices):
        blocks.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(devices, "seed_generators", lambda *args: blocks.append(args))
    with devices.seeded("cuda:1", 5):
        pass
    assert blocks == [[torch.device("cuda:1")], ("cuda:1", 5)]


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_generators_are_seeded_of_this_device_alone(monkeypatch, device):
    """torch.manual_seed would begin anew the dropout of fits on other devices."""
    asked = []

    @contextlib.contextmanager
    def on(device):
        asked.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "manual_seed", asked.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: asked.append("all"))
    with torch.random.fork_rng(devices=[]):
        devices.seed_generators(device, 5)
        assert torch.initial_seed() == 5
        drawn = torch.rand(3)
        torch.default_generator.manual_seed(5)
        assert torch.equal(drawn, torch.rand(3))
    assert asked == ([] if device == "cpu" else ["cuda:1", 5])


def test_a_fit_on_the_cpu_leaves_the_generators_of_all_devices(make, data, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    make(max_epochs=1, dropout=0.1).fit(*data)
    assert seeds == []


def test_the_generator_of_a_mac_is_seeded_and_restored(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    for name in ("manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch.mps, name, asked.append)
    with devices.seeded("mps", 5):
        assert asked == [5]
    assert asked == [5, "before"]


def test_the_state_of_the_generator_is_stored_and_restored(make, data, calls):
    net = make(device="cpu").fit(*data).net_
    assert snapshot._cuda_state(net) is None and not calls
    net.device = "cuda:1"
    assert snapshot._cuda_state(net).tolist() == [0, 1, 2]
    assert calls == [("get_rng_state", torch.device("cuda:1"))]


@pytest.mark.parametrize("device, restored", [("cuda:1", [([7], "cuda:1")]), ("cpu", [])])
def test_the_state_is_restored_on_cuda_alone(make, data, monkeypatch, device, restored):
    """A fit that began on CUDA may go on elsewhere."""
    asked = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: asked.append(args))
    net = SimpleNamespace(
        device=device,
        set_moments=lambda moments: None,
        optimizer_=SimpleNamespace(param_groups=[]),
        loop_=SimpleNamespace(
            updates=SimpleNamespace(load_state_dict=lambda state: None),
            batches=SimpleNamespace(set_state=lambda state, n: None),
        ),
        processes=SimpleNamespace(rank=0),
    )
    state = {"moments": {}, "groups": [], "updates": {}, "batches": {}, "n_batches": 1}
    with torch.random.fork_rng(devices=[]):
        generators = [[torch.get_rng_state(), [7]]]
        snapshot._restore_position(net, {**state, "globals": None, "generators": generators})
    assert asked == restored


def test_a_fit_on_a_device_of_its_own_name_takes_no_turns(monkeypatch):
    monkeypatch.setattr(devices, "resolve_device", str)
    monkeypatch.setattr(devices, "_CPU", None)  # the lock of fits on the CPU would fail
    with devices.hold_device("cuda:1") as name:
        assert name == "cuda:1"


@pytest.mark.parametrize("rank, local, expected", [(3, None, "cuda:1"), (3, "0", "cuda:0")])
def test_each_process_takes_the_device_of_its_number(calls, monkeypatch, rank, local, expected):
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    processes = SimpleNamespace(size=4, rank=rank)
    device = process_group.Processes.device
    assert device(processes, "auto") == device(processes, "cuda") == expected
    assert device(processes, "cuda:0") == "cuda:0" and device(processes, "cpu") == "cpu"
    assert device(SimpleNamespace(size=1, rank=0), "auto") == "auto"


def test_processes_speak_through_nccl_on_the_device_and_gloo_beside(calls, monkeypatch):
    backends = []
    monkeypatch.setattr(process_group.dist, "init_process_group", backends.append)
    monkeypatch.setattr(process_group.atexit, "register", lambda function: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    process_group._connect()
    assert backends == ["cpu:gloo,cuda:nccl"] and calls == [("set_device", 1)]


@pytest.mark.parametrize("device, pinned", [("cpu", False), ("cuda:0", True)])
def test_batches_for_cuda_come_from_pinned_memory(make, data, device, pinned):
    clf = make(device="cpu").fit(*data)
    net, tokens = clf.net_, clf.tokenizer_(data[0])["input_ids"]
    net.device = device
    for kind in ("train", "valid"):
        assert net.loader(TokenDataset(tokens), [[0, 1]], kind).pin_memory is pinned


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((9, 0), None, True), ((7, 5), None, False), ((7, 5), "6", True)],
)
def test_bfloat16_is_fast_on_a_gpu_since_ampere(monkeypatch, capability, hip, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", {"cuda:1": capability}.get)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert devices.has_fast_bfloat16("cuda:1") is expected


@pytest.mark.parametrize(("family", "expected"), [("bert", "bfloat16"), ("deberta", "float32")])
def test_on_a_gpu_too_the_encoder_must_bear_bfloat16(monkeypatch, tmp_path, family, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    FAMILIES[family](tmp_path)
    encoder = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert best_precision(encoder, 0, "cuda:1") == expected


def test_a_loss_module_is_tried_on_the_cpu_only_where_it_will_train(calls):
    class Loss(torch.nn.Module):
        def forward(self, logits, target):
            raise AssertionError("not to be called")

    loss = CustomLoss(Loss())
    data = SimpleNamespace(codes=None, train=None, classes=None)  # which would fail, too
    plan._try_loss(loss, SimpleNamespace(device="auto", batch_size=2), data)
    plan._try_loss(loss, SimpleNamespace(device="cuda", batch_size=2), data)


@pytest.mark.parametrize("optimizer, fused", [(torch.optim.AdamW, True), (torch.optim.SGD, None)])
def test_adamw_is_fused_on_every_device(make, data, optimizer, fused):
    clf = make(net_params={"optimizer": optimizer}).fit(*data)
    assert clf.net_.optimizer_.defaults.get("fused") == fused


@pytest.mark.parametrize("device, halves", [("cuda:1", True), ("mps", False)])
def test_the_audit_reads_in_bfloat16_on_cuda(monkeypatch, device, halves):
    class Stop(Exception):
        pass

    def autocast(*args, **kwargs):
        raise Stop(args, kwargs)

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(promises, "bears_bfloat16", lambda encoder, pad_id: True)
    encoder = SimpleNamespace(
        module=SimpleNamespace(model=None), tokenizer=SimpleNamespace(pad_token_id=0)
    )
    with pytest.raises(Stop) as asked:
        _neighbours.Encoder._embedded(encoder, [], device, None)
    assert asked.value.args == ((torch.device(device).type, torch.bfloat16), {"enabled": halves})


@pytest.mark.parametrize("device, sizes", [("cpu", [3, 3, 3, 1]), ("cuda:1", [8, 2])])
def test_predictions_elsewhere_take_documents_not_tokens(monkeypatch, device, sizes):
    monkeypatch.setattr(inference, "_TOKENS_AT_ONCE", 12)
    dataset = SimpleNamespace(tokens=SimpleNamespace(lengths=np.full(10, 4)))
    net = SimpleNamespace(device=device, batch_size=2)
    assert [len(rows) for rows in inference.prediction_batches(net, dataset)] == sizes


@pytest.mark.parametrize("device, ids", [("cpu", None), ("cuda:1", ["cuda:1"])])
def test_the_module_of_a_process_lies_on_its_device(monkeypatch, device, ids):
    asked = []
    monkeypatch.setattr(
        torch.nn.parallel, "DistributedDataParallel", lambda *args, **kwargs: asked.append(kwargs)
    )
    processes = SimpleNamespace(size=2)
    strategies.DDP(SimpleNamespace(processes=processes, device=device, module_=None), False)
    assert [kwargs["device_ids"] for kwargs in asked] == [ids]


@pytest.mark.parametrize("device, n_warned", [("cpu", 1), ("cuda:1", 0)])
def test_bfloat16_warns_on_a_cpu_alone(monkeypatch, device, n_warned):
    monkeypatch.setattr(advice, "cpu_has_bfloat16", lambda: False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        advice.warn_bfloat16("precision", "bfloat16", device)
    assert len(caught) == n_warned


class OnMac(torch.Tensor):
    """A tensor of the CPU that claims another device, on which it stays."""

    device = SimpleNamespace(type="mps")

    def to(self, *args):
        return self


@pytest.mark.parametrize("kind, dtype", [(OnMac, torch.float32), (torch.Tensor, torch.float64)])
def test_the_loss_of_a_class_is_summed_in_double_precision_where_there_is_one(kind, dtype):
    callback = ClassLoss()
    callback.sum_ = torch.zeros(2, dtype=torch.float64)
    batch = torch.ones(3, 2), torch.zeros(3, dtype=torch.long), torch.ones(3)
    callback.kept_ = [[part.as_subclass(kind) for part in batch]]
    criterion = SimpleNamespace(per_class=lambda logits, codes: logits)
    net = SimpleNamespace(device="cpu", criterion_=criterion, processes=process_group.ALONE)
    callback.settle(net)
    assert callback.sum_.dtype == dtype and callback.sum_.tolist() == [3, 3]


def test_dropout_on_a_device_is_torchs_own(make, data, monkeypatch):
    def dropped_positions(n, probability):
        raise AssertionError("drawn by the host")

    monkeypatch.setattr(fast_dropout, "dropped_positions", dropped_positions)
    x = torch.ones(1, 2, 3, 4, device="meta")
    with fast_dropout.FastDropout():
        assert F.dropout(x, 0.1).shape == x.shape
        assert F.scaled_dot_product_attention(x, x, x, dropout_p=0.1).shape == x.shape
        with pytest.raises(AssertionError, match="drawn by the host"):
            F.dropout(torch.ones(3), 0.1)
    net = make(max_epochs=1).fit(*data).net_
    net.module_.model.config.hidden_dropout_prob = 0.1
    for module in net.module_.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    loop = SimpleNamespace(net=net)
    net.precision = "bfloat16"
    assert TrainingLoop._fast_ways(loop) == [Float32Attention, fast_dropout.FastDropout]
    net.device = "cuda:1"
    assert TrainingLoop._fast_ways(loop) == []
