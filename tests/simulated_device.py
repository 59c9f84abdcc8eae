"""A device that is neither a CPU nor CUDA, simulated in Python, which counts what CUDA makes dear.

Its tensors hold tensors of the CPU, so the numbers are real. As on CUDA, an operation on tensors
of the CPU and of the device fails, and `float`, `bool` and `int` of a tensor wait for the device.
The name is registered for the whole process: run it in one of its own.
"""

import collections

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

aten = torch.ops.aten
NAME = "simulated"
# Operations that take indices of the CPU on any device, and those that move a tensor.
_MIXED = {aten.index.Tensor, aten.index_put_.default, aten._to_copy.default, aten.copy_.default}


class OnDevice(torch.Tensor):
    """A tensor on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        """Return a tensor that claims to be on the device."""
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=f"{NAME}:0",
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"OnDevice({self.held!r})"

    def tolist(self):
        """Read all numbers at once; torch refuses to do it for subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Device.current.run(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """The device, inside the block.

    Attributes
    ----------
    counts : Counter
        "to device", "from device" and "read", the number of transfers and of scalars read.
    """

    current: "Device"

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()
        Device.current = self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        """Run an operation on what the tensors hold."""
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        held = [x for x in tensors if isinstance(x, OnDevice)]
        # Numbers of the CPU go with any tensor.
        foreign = [x for x in tensors if not isinstance(x, OnDevice) and x.dim() > 0]
        if held and foreign and func not in _MIXED:
            raise RuntimeError(f"{func} got tensors of the CPU and of the device.")
        on_device = bool(held)
        if kwargs.get("device") is not None:
            on_device = torch.device(kwargs["device"]).type == NAME
        if on_device and "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if func is aten.copy_.default:
            on_device = isinstance(args[0], OnDevice)
            self._count(isinstance(args[1], OnDevice), on_device)
        if func is aten._to_copy.default:
            self._count(bool(held), on_device)
        self.counts["read"] += bool(held) and func in (
            aten._local_scalar_dense.default,
            aten.equal.default,
            aten.nonzero.default,  # its size is not known beforehand
        )
        args, kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
        result = func(*args, **kwargs)
        if not on_device:
            return result
        same = {id(x.held): x for x in held}  # of what is written in place
        wrapped = lambda x: same[id(x)] if id(x) in same else OnDevice(x)  # noqa: E731
        return tree_map_only(torch.Tensor, wrapped, result)

    def _count(self, source, target):
        if source != target:
            self.counts["to device" if target else "from device"] += 1


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)


def register():
    """Make the device known to torch, in this process, for good."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    # Else a module gives its old parameters the data of another device, which cannot be.
    torch.__future__.set_swap_module_params_on_conversion(True)


def ignore_autocast():
    """Let autocast do nothing on the device, which has no kernels for it."""
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    return library  # which must be kept
