"""A device that is neither a CPU nor CUDA, simulated in Python, which counts what CUDA makes dear.

Its tensors hold tensors of the CPU, so the numbers are real. As on CUDA, an operation on tensors
of the CPU and of the device fails, and `float`, `bool` and `int` of a tensor wait for the device.
Autocast casts what it casts on CUDA, the memory may be limited, and what has no deterministic form
on CUDA has none here.

Fake tensors of type "cuda" do not carry as far: they have no numbers, and a torch that was built
without CUDA refuses to move one there.

The name is registered for the whole process: run it in one of its own.
"""

import collections
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

aten = torch.ops.aten
NAME = "simulated"
# Operations that take indices of the CPU on any device, and those that move a tensor.
_MIXED = {aten.index.Tensor, aten.index_put_.default, aten._to_copy.default, aten.copy_.default}
# Operations on floating-point numbers without a deterministic form on CUDA, as far as a text
# classifier could come by them; those of the CPU, such as put_, raise by themselves.
_NOT_DETERMINISTIC = {
    aten.cumsum.default,
    aten.histc.default,
    aten.median.dim,
    aten.kthvalue.default,
    aten.nll_loss2d_forward.default,
}
_COMPOSITE = "CompositeImplicitAutograd"
_PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}
# What autocast does on CUDA, from the lists in ATen/autocast_mode.h: computed in half
# precision, and in float32. The others take what they get.
_IN_HALF = """
linear matmul mm bmm addmm addmv mv baddbmm addbmm einsum prelu scaled_dot_product_attention
"""
_IN_FLOAT32 = """
layer_norm native_layer_norm exp log log1p log2 reciprocal rsqrt pow.Tensor_Scalar
pow.Tensor_Tensor softplus nll_loss kl_div mse_loss l1_loss binary_cross_entropy_with_logits
cosine_similarity logsumexp softmax.int log_softmax.int cumsum prod sum sum.dim_IntList
linalg_vector_norm dist
"""


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

    Parameters
    ----------
    memory : int, default=None
        Bytes; an operation whose result does not fit in raises torch.OutOfMemoryError.
    backward_only : bool, default=False
        Whether only a backward pass runs out of memory.

    Attributes
    ----------
    counts : Counter
        "to device", "from device" and "read", the number of transfers and of scalars read.
    calls : Counter
        Operations on the device by name; matrix products by their dtype, too.
    n_refused, n_in_backward : int
        How often the memory was too little; how often in a backward pass.
    peak : int
        The most bytes in use, with a limit.
    """

    current: Any = SimpleNamespace(raise_from_backward=lambda: None)

    def __init__(self, memory=None, backward_only=False):
        super().__init__()
        self.counts = collections.Counter()
        self.calls = collections.Counter()
        self.memory = memory
        self.backward_only = backward_only
        self.n_refused = self.n_in_backward = self.peak = 0
        self._is_full = False
        self._held = weakref.WeakValueDictionary()
        Device.current = self

    def used(self):
        """Return the bytes of all tensors on the device that are still referred to."""
        gc.collect()
        return self._used()

    def _used(self):
        storages = (held.untyped_storage() for held in list(self._held.values()))
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        """Run an operation on what the tensors hold."""
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            with self:  # made of others; in inference mode torch does not take it apart itself
                return func.decompose(*args, **kwargs)
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
        if func in _NOT_DETERMINISTIC and on_device and held[0].is_floating_point():
            _alert(func)
        args, kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
        result = func(*args, **kwargs)
        if not on_device:
            return result
        self.calls[func.overloadpacket.__name__] += 1
        if func in _PRODUCTS:
            self.calls[result.dtype] += 1
        same = {id(x.held): x for x in held}  # of what is written in place
        wrapped = lambda x: same[id(x)] if id(x) in same else self._placed(x)  # noqa: E731
        return tree_map_only(torch.Tensor, wrapped, result)

    def _placed(self, held):
        self._held[id(held)] = held  # not the tensor: torch swaps none that has a weak reference
        if self.memory is not None:
            used = self._used()
            self.peak = max(self.peak, used)
            if used > self.memory and (_in_backward() or not self.backward_only):
                self._refuse()
        with torch.inference_mode(False):  # a view of a weight is no tensor of inference
            return OnDevice(held)

    def _refuse(self):
        # While an error of Python's leaves autograd's engine, the engine asks the device's guard,
        # which is Python, too, for its type, and the process ends. So the error waits.
        self._is_full = _in_backward()
        if not self._is_full:
            self.n_refused += 1
            raise torch.OutOfMemoryError(f"The device has {self.memory} bytes.")

    def raise_from_backward(self):
        """Raise what could not be raised within autograd's engine."""
        if self._is_full:
            self._is_full = False
            self.n_in_backward += 1
            self._refuse()

    def _count(self, source, target):
        if source != target:
            self.counts["to device" if target else "from device"] += 1


def _in_backward():
    return torch._C._current_graph_task_id() != -1


def _alert(func):
    if torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(
            f"{func.overloadpacket.__name__} does not have a deterministic implementation, but you "
            "set 'torch.use_deterministic_algorithms(True)'."
        )


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
    run_backward = torch.autograd._engine_run_backward

    def backward(*args, **kwargs):
        result = run_backward(*args, **kwargs)
        Device.current.raise_from_backward()
        return result

    torch.autograd._engine_run_backward = backward


def register_autocast():
    """Let autocast cast on the device what it casts on CUDA; return what must be kept for that."""
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    library = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for name in _IN_HALF.split():
        library.impl(name, _casting(name, lambda: torch.get_autocast_dtype(NAME)))
    for name in _IN_FLOAT32.split():
        library.impl(name, _casting(name, lambda: torch.float32))
    return others, library


def _casting(name, dtype):
    """Return an operation behind autocast: what it gets in floating point is cast first."""
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(aten, packet), overload or "default")
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(tensor):
        is_cast = tensor.is_floating_point() and tensor.device.type == NAME
        return tensor.to(dtype()) if is_cast and tensor.dtype != torch.float64 else tensor

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            args, kwargs = tree_map_only(torch.Tensor, cast, (args, kwargs))
            return operation(*args, **kwargs)

    return kernel
