"""How several processes hold one module while it trains: a copy each, or a part each."""

import contextlib
import copy
import os

import torch
import torch.distributed as dist

from skfocal._encoder.structure import layers_of
from skfocal._utils.optional import import_optional


class SingleProcess:
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


class DDP(SingleProcess):
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
        from torch.nn.parallel import DistributedDataParallel

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


class FSDP(SingleProcess):
    """A part each of weights, gradients and moments: torch's FSDP 2 by accelerate's configuration.

    Each process keeps the whole weights in its host's memory beside, for what comes after the
    training.

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
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.factor = net.processes.size
        settings = _settings_of_accelerate(net)
        # Loading that spares memory leaves the weights to the first process.
        for tensor in net.module_.state_dict().values():
            dist.broadcast(tensor, 0)
        self.whole = net.module_.cpu()
        self.forward = net.module_ = copy.deepcopy(self.whole)
        encoder = self.forward.model
        mesh = init_device_mesh(torch.device(net.device).type, (net.processes.size,))
        for part in (*layers_of(encoder), encoder):
            fully_shard(part, mesh=mesh, **settings)
        net._initialize_optimizer()  # over the parts

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
        self.whole.load_state_dict(net.state())
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
        return SingleProcess(net)
    if _wants("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(
            "accelerate's configuration must not ask for DeepSpeed, which takes over the training "
            "loop: FSDP does the same sharding. Choose FSDP, version 2."
        )
    if _wants("ACCELERATE_USE_FSDP"):
        return FSDP(net)
    probe()
    leaves_out = any(p.grad is None for p in net.module_.parameters() if p.requires_grad)
    net.module_.zero_grad(set_to_none=True)
    return DDP(net, leaves_out)


def _wants(name):
    return os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")


def _settings_of_accelerate(net):
    """Return what the configuration says, as arguments of ``fully_shard``."""
    accelerate = import_optional("accelerate", "FSDP", "accelerate")
    plugin = accelerate.FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"accelerate's configuration must have fsdp_version: 2. Got {plugin.fsdp_version}."
        )
    for name, value in (("compile", True), ("precision", "float16")):
        if getattr(net, name) == value:
            raise ValueError(f"{name} must not be {value!r} with FSDP.")
    offload = {"offload_policy": plugin.cpu_offload} if plugin.cpu_offload else {}
    return {"reshard_after_forward": plugin.reshard_after_forward, **offload}
