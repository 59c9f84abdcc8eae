"""How several processes hold one module while it trains: a copy each, or a part each."""

import contextlib
import copy
import importlib.util
import os

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


class Held:
    """The module of a process that trains alone.

    Attributes
    ----------
    forward : callable
        Runs the module.
    in_parts : bool
        Whether batches may be computed in parts, of which each process has its own number.
    retries : bool
        Whether a batch may be computed again after the memory was too small.
    factor : int
        What a loss is multiplied by because gradients become the processes' mean.
    """

    in_parts = retries = True
    factor = 1

    def __init__(self, net):
        self.forward = net.module_

    def adding(self):
        """Return a context in which gradients are added up and not exchanged."""
        return contextlib.nullcontext()

    def release(self, net, keep_moments):
        """Leave the net with a module of its own."""


class Replicated(Held):
    """A copy each, whose gradients are averaged while the backward pass goes on: torch's DDP.

    Parameters
    ----------
    net : FocalNet
        Initialised, with its weights the same in all processes.
    leaves_out : bool
        Whether there are weights that learn and get no gradient.
    """

    retries = False  # a part of the gradients may have been exchanged

    def __init__(self, net, leaves_out):
        self.factor = net.processes.size
        on_cpu = torch.device(net.device).type == "cpu"
        self.forward = DistributedDataParallel(
            net.module_,
            device_ids=None if on_cpu else [net.device],
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=leaves_out,
        )

    def adding(self):
        """Return a context in which gradients are added up and not exchanged."""
        return self.forward.no_sync()


class Sharded(Held):
    """A part each of weights, gradients and moments: FSDP 2 as accelerate's configuration says.

    Each keeps the whole weights in its host's memory beside, for what comes after the training.

    Parameters
    ----------
    net : FocalNet
        Initialised.

    Raises
    ------
    ImportError
        If accelerate is not installed.
    ValueError
        If the configuration or the net's settings do not go with it.
    """

    in_parts = retries = False

    def __init__(self, net):
        self.factor = net.processes.size
        accelerator = _accelerator(net)
        self.whole = copy.deepcopy(net.module_).cpu()
        # The head reads what the encoder gives: all weights are the encoder's.
        _, optimizer = accelerator.prepare(net.module_.model, net.optimizer_)
        accelerator.free_memory()
        net.optimizer_ = optimizer.optimizer
        self.forward = net.module_

    @contextlib.contextmanager
    def adding(self):
        """Add gradients up, whole ones, without exchanging them."""
        self.forward.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.forward.model.set_requires_gradient_sync(True)

    def release(self, net, keep_moments):
        """Put the whole module, with the weights of now, into the sharded one's place."""
        self.whole.load_state_dict(full(net.module_.state_dict()))
        moments = net.moments() if keep_moments else {}
        net.module_ = self.whole.to(net.device)
        net._initialize_optimizer()
        net.set_moments(moments)


def hold(net, probe):
    """Return how the net's module is held.

    Parameters
    ----------
    net : FocalNet
        Initialised.
    probe : callable
        Computes the gradient of one document.
    """
    if net.processes.size == 1:
        return Held(net)
    if _wants("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(
            "accelerate's configuration must not ask for DeepSpeed, which takes over the training "
            "loop: FSDP does the same sharding. Choose FSDP, version 2."
        )
    if _wants("ACCELERATE_USE_FSDP"):
        return Sharded(net)
    probe()
    leaves_out = any(p.grad is None for p in net.module_.parameters() if p.requires_grad)
    net.module_.zero_grad(set_to_none=True)
    return Replicated(net, leaves_out)


def _wants(name):
    return os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")


def _accelerator(net):
    """Return an Accelerator that has read its configuration."""
    if importlib.util.find_spec("accelerate") is None:
        raise ImportError("FSDP needs accelerate: pip install 'skfocal[accelerate]'.")
    from accelerate import Accelerator

    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(f"accelerate's configuration must have fsdp_version: 2. Got {version}.")
    for name, value in (("compile", True), ("precision", "float16")):
        if getattr(net, name) == value:
            raise ValueError(f"{name} must not be {value!r} with FSDP.")
    return Accelerator(cpu=torch.device(net.device).type == "cpu")


# -- tensors of which each process has a part ------------------------------------------------


def full(value):
    """Return the whole of a tensor, or of the tensors in a dict."""
    if isinstance(value, dict):
        return {name: full(item) for name, item in value.items()}
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value, own):
    """Return a whole tensor divided as `own` is, on its device."""
    if not isinstance(own, DTensor):
        return value.to(own.device, copy=True)
    whole = value.to(own.device)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


def load(module, state):
    """Give a module a whole state."""
    own = module.state_dict()
    if not any(isinstance(value, DTensor) for value in own.values()):
        module.load_state_dict(state)
        return
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(like(state[name], value))
