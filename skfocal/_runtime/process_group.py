"""The processes that train one model together, and the communication between them."""

import atexit
import contextlib
import os
import pickle
import sys
import threading
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

from skfocal._runtime.workers import is_launched, is_worker

_ALARM_SECONDS = 20  # for an error that all processes meet to reach all of them


class Processes:
    """All processes of a job, or this one alone.

    Every process calls the same methods in the same order. A value that must come from a single
    process comes from the first one. A process that is alone sends nothing.

    Parameters
    ----------
    rank, size : int
        Number of this process, from 0, and number of all processes.
    control, alarm : torch.distributed.ProcessGroup, default=None
        `control` carries everything but gradients; `alarm` carries errors only.
    """

    def __init__(self, rank=0, size=1, control=None, alarm=None):
        self.rank = rank
        self.size = size
        self.control = control
        self.alarm = alarm

    def __deepcopy__(self, memo):
        return self  # connections cannot be copied

    @property
    def is_first(self):
        """Whether this process speaks for all."""
        return self.rank == 0

    def device(self, device):
        """Return the device of this process where each is to have its own."""
        if self.size == 1 or str(device) not in ("auto", "cuda") or not torch.cuda.is_available():
            return device
        number = int(os.environ.get("LOCAL_RANK", self.rank))
        return f"cuda:{number % torch.cuda.device_count()}"

    # -- what they tell one another --------------------------------------------------------

    def broadcast(self, value=None):
        """Return the first process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.control, group_src=0)
        return values[0]

    def all_gather(self, value):
        """Return the values of all processes, in their order."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def first(self, function, *args):
        """Return what a function gives in the first process; raise its error in all of them."""
        if self.size == 1:
            return function(*args)
        result = error = None
        if self.is_first:
            try:
                result = function(*args)
            except Exception as caught:
                error = _portable(caught)
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result

    def any(self, flag):
        """Say whether a flag is set in any process."""
        if self.size == 1:
            return bool(flag)
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def all_reduce_sum(self, value):
        """Return the sum of a tensor over the processes, without waiting for the device."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def sync_rng(self, generator):
        """Give a random generator the state that it has in the first process."""
        if self.size > 1:
            generator.set_state(self.broadcast(generator.get_state()))

    # -- who does what -----------------------------------------------------------------------

    def mine(self, rows):
        """Return this process's share of some rows; the first row if there are too few."""
        own = rows[self.rank :: self.size]
        return own if len(own) else rows[:1]

    def map_rows(self, n, compute):
        """Return ``compute(rows)`` for n rows, divided among the processes.

        Parameters
        ----------
        n : int
        compute : callable ``(slice) -> ndarray``
            Returns one row of the result for each row of the slice.
        """
        if self.size == 1:
            return compute(slice(None))
        # With fewer rows than processes, some processes compute a row that is not used.
        parts = self.all_gather(compute(slice(self.rank if self.rank < n else 0, None, self.size)))
        result = parts[0].repeat(self.size, axis=0)[:n]
        for rank, part in enumerate(parts[:n]):
            result[rank :: self.size] = part
        return result

    def dealt_back(self, own):
        """Return the whole list, of which each process has every `size`-th item in `own`."""
        parts = self.all_gather(own)
        whole = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    # -- errors --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self):
        """Raise an error that all processes meet; end this process after an error of its own.

        The other processes wait for this one, so it must not go on by itself, as it would if a
        search caught the exception and tried its next candidate. When a process ends, the
        launcher ends all others.
        """
        try:
            yield
        except Exception as error:
            if self.size > 1 and not self._all_fail():
                traceback.print_exc()
                sys.stderr.write(
                    f"Process {self.rank} of {self.size} ends: the others did not meet this "
                    f"{type(error).__name__}, so the training cannot go on. If the error is about "
                    "a connection, another process has ended before this one.\n"
                )
                atexit.unregister(_disconnect)  # it would wait for the others
                raise SystemExit(1) from error
            raise

    def _all_fail(self):
        try:
            dist.all_reduce(torch.zeros(1), group=self.alarm)
        except RuntimeError:
            return False
        return True

    def check_same(self, **values):
        """Raise ValueError in all processes if a value differs between them."""
        if self.size == 1:
            return
        everywhere = self.all_gather({name: value() for name, value in values.items()})
        differ = [n for n in values if any(v.get(n) != everywhere[0].get(n) for v in everywhere)]
        if differ:
            raise ValueError(
                f"{' and '.join(differ)} must be the same in all {self.size} processes, which "
                "divide the documents among themselves: load the same data in the same order in "
                "each. Got different values."
            )


def _portable(error):
    """Return the error if it can be pickled, or else a RuntimeError with its traceback."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling may raise an error of any kind
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


ALONE = Processes()
_current = ALONE
_world = None  # the default group that `_current` belongs to
_LOCAL = threading.local()  # .alone: inside the context manager `alone`


def current():
    """Return the processes that this one was started with by torchrun or accelerate.

    The first call connects them. A worker of joblib, Dask or Ray, a thread other than the main
    one, and a forked process are each alone.

    Raises
    ------
    RuntimeError
        If the processes were connected before but no longer are.
    """
    global _current, _world
    beside = threading.current_thread() is not threading.main_thread()
    if beside or getattr(_LOCAL, "alone", False) or not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if _current is not ALONE:
            raise RuntimeError(
                "The processes that train together were disconnected by destroy_process_group: "
                "call it last, or put the work of a single process into `with skfocal.alone():`."
            )
        if not is_launched() or is_worker():
            return ALONE
        _connect()
    if (
        dist.get_world_size() > 1 and _world is not dist.group.WORLD
    ):  # a new group after the end of another
        control = dist.new_group(backend="gloo")
        dist.barrier(control)  # a late process must not meet the short timeout of `alarm`
        alarm = dist.new_group(backend="gloo", timeout=timedelta(seconds=_ALARM_SECONDS))
        _current = Processes(dist.get_rank(), dist.get_world_size(), control, alarm)
        _world = dist.group.WORLD
    return _current


@contextlib.contextmanager
def alone():
    """Let one of several processes fit and predict by itself inside a ``with`` block.

    Under torchrun or ``accelerate launch`` all processes have to call `fit` and `predict` with
    the same documents, which they divide. Use this context manager for work that a process does
    by itself: an evaluation in the first process, or a different fit in each. Without several
    processes it changes nothing.

    Examples
    --------
    >>> import os, skfocal
    >>> if os.environ.get("RANK", "0") == "0":
    ...     with skfocal.alone():
    ...         pass  # print(clf.predict(X_new))
    """
    before = getattr(_LOCAL, "alone", False)
    _LOCAL.alone = True
    try:
        yield
    finally:
        _LOCAL.alone = before


def speaks():
    """Say whether this process is the one that prints and writes on behalf of all."""
    if getattr(_LOCAL, "alone", False):
        return True
    if _current is ALONE and is_launched() and not is_worker():  # nothing has been fitted so far
        return os.environ["RANK"] == "0"
    return _current.is_first


def _forked():
    if dist.is_available() and dist.is_initialized():  # with connections that belong to the parent
        _LOCAL.alone = True
        atexit.unregister(_disconnect)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _connect():
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group(backend)
    atexit.register(_disconnect)


def _disconnect():
    if dist.is_initialized():
        dist.destroy_process_group()


# -- tensors divided among the processes: torch's DTensor, whose import takes a second ------------


def is_part(value):
    """Say whether this process has only a part of a tensor."""
    return hasattr(value, "full_tensor")


def full(value):
    """Return a whole tensor, or a dict of whole tensors."""
    if isinstance(value, dict):
        return {name: full(item) for name, item in value.items()}
    return value.full_tensor() if is_part(value) else value


def like(value, own):
    """Return a whole tensor divided as `own` is, on its device."""
    if not is_part(own) or value.shape != own.shape:  # such as a count of steps
        return value.to(own.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    whole = value.to(own.device)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


def load(module, state):
    """Load a state of whole tensors into a module, which may be divided."""
    own = module.state_dict()
    if not any(map(is_part, own.values())):
        module.load_state_dict(state)
        return
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(like(state[name], value))
