"""How processes share a module during training: one process, DDP copies or FSDP shards."""

import contextlib
import copy
import os

import torch
import torch.distributed as dist

from skfocal._encoder.structure import layers_of
from skfocal._utils.optional import import_optional


class SingleProcess:
    """The module belongs to a single process.

    Attributes
    ----------
    forward : callable
        Runs the module.
    in_parts : bool
        Whether batches may be split into micro-batches, whose number differs between processes.
    retries : bool
        Whether a batch may be computed again after the memory ran out.
    factor : int
        Multiplies the loss, because gradients are averaged over the processes.
    """

    in_parts = retries = True
    factor = 1

    def __init__(self, net):
        self.forward = net.module_

    def adding(self):
        """Return a context in which gradients accumulate without being exchanged."""
        return contextlib.nullcontext()

    def release(self, net, keep_moments):
        """Leave the net with a complete module."""


class DDP(SingleProcess):
    """Each process has a copy; torch's DDP averages the gradients during the backward pass.

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
        """Return a context in which gradients accumulate without being exchanged."""
        return self.forward.no_sync()


class FSDP(SingleProcess):
    """Each process has a shard of weights, gradients and moments: torch's FSDP 2.

    The settings come from the configuration of accelerate.

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
        # With memory-efficient loading, only the first process has the weights.
        for tensor in net.module_.state_dict().values():
            dist.broadcast(tensor, 0)
        self.whole = net.module_.cpu()
        self.forward = net.module_ = copy.deepcopy(self.whole)
        encoder = self.forward.model
        mesh = init_device_mesh(torch.device(net.device).type, (net.processes.size,))
        for part in (*layers_of(encoder), encoder):
            fully_shard(part, mesh=mesh, **settings)
        net._initialize_optimizer()  # over the shards

    @contextlib.contextmanager
    def adding(self):
        """Add gradients up, whole ones, without exchanging them."""
        self.forward.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.forward.model.set_requires_gradient_sync(True)

    def release(self, net, keep_moments):
        """Replace the sharded module by the complete one, with the present weights."""
        self.whole.load_state_dict(net.state())
        moments = net.moments() if keep_moments else {}
        net.module_ = self.whole.to(net.device)
        net._initialize_optimizer()
        net.set_moments(moments)


def hold(net, probe):
    """Return the strategy for the module of a net.

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
    """Return the configuration as arguments of ``fully_shard``."""
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
