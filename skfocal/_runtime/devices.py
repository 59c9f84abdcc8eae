"""Choose the device of a fit while other fits of the same search are running."""

import contextlib
import os
import threading
import time

import torch
from filelock import FileLock, Timeout
from torch.overrides import TorchFunctionMode

from skfocal._runtime.process_settings import counted
from skfocal._runtime.threads import available_threads
from skfocal._runtime.warnings import warn
from skfocal._runtime.workers import shared_folder
from skfocal._utils.messages import excerpt

# The dtype of autocast for each `precision`.
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU = threading.RLock()
_HELD = threading.local()
# Functions and methods of torch, and of torch.nn.init, that take a generator.
_DRAWING = {
    *("normal", "rand", "randn", "randint", "randperm", "bernoulli", "multinomial"),
    *("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "trunc_normal_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"),
}
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def seeded(device, seed):
    """Seed torch's generators, that of the device too, and restore them after the block."""
    of_mps = torch.mps.get_rng_state() if torch.device(device).type == "mps" else None
    try:
        with fork_generators(device):
            seed_generators(device, seed)
            yield
    finally:
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


def fork_generators(device):
    """Return a block that restores torch's generator, and that of a CUDA device, at its end."""
    on_cuda = torch.device(device).type == "cuda"
    return torch.random.fork_rng(devices=[torch.device(device)] if on_cuda else [])


def seed_generators(device, seed):
    """Seed torch's generator of the CPU, and that of the device.

    ``torch.manual_seed`` seeds those of all devices, on which other fits may run.
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda", "mps"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if kind == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif kind == "mps":
        torch.mps.manual_seed(seed)


def resolve_device(device):
    """Return the name of a torch device that can be used here.

    "auto" prefers CUDA, then the GPU of a Mac.
    """
    if str(device) == "auto":
        usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return next((name for name, is_usable in usable.items() if is_usable), "cpu")
    try:
        return str(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={excerpt(str(device))} is not a device that torch can use here: "
            f"{excerpt(str(error), 300)}"
        ) from error


def has_fast_bfloat16(device):
    """Say whether a device has fast instructions for bfloat16 that torch may use."""
    kind = torch.device(device).type
    if kind == "cuda":  # before Ampere, of compute capability 8, torch emulates them
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    return kind == "cpu" and cpu_has_bfloat16()


def cpu_has_bfloat16():
    """Say whether the processor has fast instructions for bfloat16 that torch may use.

    Intel's AVX512-BF16 is slower than float32 (docs/benchmarks/speed-base.md). What is fast there
    is AMX, which virtual machines often hide. The environment variable ATEN_CPU_CAPABILITY limits
    what torch may use.
    """
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = ["amx_bf16", "sve_bf16"] + ["avx512_bf16"] * ("AMD" in flags.get("cpu_name", ""))
    present = any(flags.get(name, False) for name in fast)
    return present and torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "SVE"))


class OwnGenerator(TorchFunctionMode):
    """Inside the block, this thread draws from a generator of its own, not from torch's.

    Unlike a generator that is restored after the block, this leaves other threads their numbers.
    """

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Give a function that draws the generator."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWING:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


@contextlib.contextmanager
def generator_kept():
    """Leave torch's generator of the CPU as it was before the block.

    Other threads that train on the CPU draw from the same generator, so this waits for them.
    """
    with _CPU, torch.random.fork_rng(devices=[]):
        yield


@contextlib.contextmanager
def hold_device(device):
    """Yield the device that a fit runs on, reserved for it until the end of the block.

    On a CPU, or the GPU of a Mac, the fits of one process take turns: each uses all processors of
    the process, and torch's generator, from which the new head is drawn. Separate processes share
    no generator, and joblib divides the threads among them. With "auto" on CUDA the fits of a
    search, in threads or processes, are spread over the visible devices, one fit on each; a fit
    that finds no free device waits.
    """
    name = resolve_device(device)
    if str(device) != "auto" or name != "cuda":
        with contextlib.nullcontext() if name.startswith("cuda") else _CPU, available_threads():
            yield name
    elif getattr(_HELD, "name", None):  # a fit inside a fit, started by a callback
        yield _HELD.name
    else:
        identities = [
            str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())
        ]
        number, lock = _first_free(shared_folder(), identities)
        _HELD.name = f"cuda:{number}"
        try:
            yield _HELD.name
        finally:
            _HELD.name = None
            lock.release()


def _first_free(folder, identities, poll=0.2):
    """Lock the first device that no thread or process holds; return its number and the lock."""
    locks = [FileLock(folder / f"device-{name}.lock", thread_local=False) for name in identities]
    warned = False
    while True:
        for number, lock in enumerate(locks):
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return number, lock
        if not warned:
            warned = True
            warn(
                f"More jobs than the {len(locks)} CUDA devices: this one waits until a device is "
                f"free. Set n_jobs={len(locks)}, or let the jobs share a device with "
                "device='cuda'."
            )
        time.sleep(poll)


# -- the same result in every run ------------------------------------------------------------


@contextlib.contextmanager
def deterministic_algorithms():
    """Let torch use only algorithms that give the same bits in every run, inside the block.

    Raises
    ------
    RuntimeError
        If an operation has no such algorithm; the message names the operation.

    Notes
    -----
    The setting applies to the whole process, so it affects other threads as well.
    """
    try:
        with _deterministic_torch():
            yield
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):
            raise
        raise RuntimeError(f"deterministic=True cannot be had: {error}") from error


@counted
@contextlib.contextmanager
def _deterministic_torch():
    found = _torch_settings()
    _set_torch(True, False, False, _deterministic_workspace())
    yield
    _set_torch(*found)


def _torch_settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(_CUBLAS),
    )


def _set_torch(enabled, warn_only, benchmark, workspace):
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    if workspace is None:
        os.environ.pop(_CUBLAS, None)
    else:
        os.environ[_CUBLAS] = workspace


def _deterministic_workspace():
    """Return the cuBLAS setting that torch requires: the user's, if it is one of the two valid."""
    present = os.environ.get(_CUBLAS)
    return present if present in (":4096:8", ":16:8") else ":4096:8"
