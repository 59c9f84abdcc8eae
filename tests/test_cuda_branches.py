"""What is done only on CUDA, with the calls to it recorded, since the suite runs without."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from skfocal._data.batches import TokenDataset
from skfocal._encoder import frozen_layers
from skfocal._estimator import build, plan
from skfocal._runtime import devices, process_group
from skfocal._training import snapshot
from skfocal.losses import CustomLoss


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
    monkeypatch.setattr(torch, "manual_seed", blocks.append)
    with devices.seeded("cuda:1", 5):
        pass
    assert blocks == [[torch.device("cuda:1")], 5]


def test_the_state_of_the_generator_is_stored_and_restored(make, data, calls):
    net = make(device="cpu").fit(*data).net_
    assert snapshot._cuda_state(net) is None and not calls
    net.device = "cuda:1"
    assert snapshot._cuda_state(net).tolist() == [0, 1, 2]
    assert calls == [("get_rng_state", torch.device("cuda:1"))]


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


def test_precision_and_shapes_are_those_of_a_gpu():
    parameters = SimpleNamespace(precision="auto")
    assert build._precision(parameters, "cuda:1") == "bfloat16"
    assert build._precision(parameters, "mps") == build._precision(parameters, "cpu") == "float32"
    assert frozen_layers._SHAPES["cuda"] == (32, 32)


def test_a_loss_module_is_tried_on_the_cpu_only_where_it_will_train(calls):
    class Loss(torch.nn.Module):
        def forward(self, logits, target):
            raise AssertionError("not to be called")

    loss = CustomLoss(Loss())
    data = SimpleNamespace(codes=None, train=None, classes=None)  # which would fail, too
    plan._try_loss(loss, "auto", data)
    plan._try_loss(loss, "cuda", data)


@pytest.mark.parametrize("optimizer, fused", [(torch.optim.AdamW, True), (torch.optim.SGD, None)])
def test_adamw_is_fused_on_every_device(make, data, optimizer, fused):
    clf = make(net_params={"optimizer": optimizer}).fit(*data)
    assert clf.net_.optimizer_.defaults.get("fused") == fused
