"""The processes that train one model together: which is this one, and what they tell each other."""

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

_ALARM_SECONDS = 20  # in which an error that all processes meet reaches all of them


class Processes:
    """All processes of a job, or this one alone.

    Each calls the same methods in the same order. What has to come from one of them comes from
    the first; alone, nothing is sent.

    Parameters
    ----------
    rank, size : int
        Which of how many this process is.
    control, alarm : torch.distributed.ProcessGroup, default=None
        For what is no gradient, and for errors only.
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
        """Say whether a flag is up in any process."""
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
        """Return this process's rows of some; the first of all where there are too few."""
        own = rows[self.rank :: self.size]
        return own if len(own) else rows[:1]

    def map_rows(self, n, compute):
        """Return ``compute(rows)`` for n rows, of which each process does its part.

        Parameters
        ----------
        n : int
        compute : callable ``(slice) -> ndarray``
            One row of the result for each.
        """
        if self.size == 1:
            return compute(slice(None))
        # Where there are fewer rows than processes, some compute one for nothing.
        parts = self.all_gather(compute(slice(self.rank if self.rank < n else 0, None, self.size)))
        result = parts[0].repeat(self.size, axis=0)[:n]
        for rank, part in enumerate(parts[:n]):
            result[rank :: self.size] = part
        return result

    def dealt_back(self, own):
        """Return the whole list of which each process has every `size`-th item."""
        parts = self.all_gather(own)
        whole = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    # -- errors --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self):
        """Raise an error that all processes meet; end this process after one that it meets alone.

        The others wait for this one, and an exception may be caught: by a search that goes on
        with its next candidate, for one. The launcher sees a process end and ends all.
        """
        try:
            yield
        except Exception as error:
            if self.size > 1 and not self._all_fail():
                traceback.print_exc()
                sys.stderr.write(
                    f"Process {self.rank} of {self.size} ends: the others did not meet this "
                    f"{type(error).__name__}, so the training cannot go on. If it is about a "
                    "connection, another process has ended before.\n"
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
        """Raise ValueError, in all processes, if what one of these returns differs between them."""
        if self.size == 1:
            return
        everywhere = self.all_gather({name: value() for name, value in values.items()})
        differ = [n for n in values if any(v.get(n) != everywhere[0].get(n) for v in everywhere)]
        if differ:
            raise ValueError(
                f"{' and '.join(differ)} must be the same in all {self.size} processes, which "
                "divide the documents among themselves. Got others in some: load the same data in "
                "the same order in each."
            )


def _portable(error):
    """Return an error that can be sent: itself, or one that holds what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # objects refuse with errors of many kinds
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


ALONE = Processes()
_current = ALONE
_world = None  # the default group that they are of
_LOCAL = threading.local()  # .alone: in the context of that name


def current():
    """Return the processes that this one was started with by torchrun or accelerate.

    The first call connects them. Workers of joblib, Dask and Ray, and threads beside the main
    one, are alone, and so is what is forked.

    Raises
    ------
    RuntimeError
        If they were connected before and are not any more.
    """
    global _current, _world
    beside = threading.current_thread() is not threading.main_thread()
    if beside or getattr(_LOCAL, "alone", False) or not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if _current is not ALONE:
            raise RuntimeError(
                "The processes that train together were disconnected by destroy_process_group: "
                "call it last, or put what each does by itself into `with skfocal.alone():`."
            )
        if not is_launched() or is_worker():
            return ALONE
        _connect()
    if dist.get_world_size() > 1 and _world is not dist.group.WORLD:  # another after one's end
        control = dist.new_group(backend="gloo")
        dist.barrier(control)  # one that comes late must not find the next too short
        alarm = dist.new_group(backend="gloo", timeout=timedelta(seconds=_ALARM_SECONDS))
        _current = Processes(dist.get_rank(), dist.get_world_size(), control, alarm)
        _world = dist.group.WORLD
    return _current


@contextlib.contextmanager
def alone():
    """Let this process of several fit and predict by itself, within a ``with`` block.

    Under torchrun or ``accelerate launch`` all processes have to call `fit` and `predict` with
    the same documents, which they divide. What one of them does by itself goes here: an
    evaluation by the first, or another fit in each. Elsewhere it changes nothing.

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
    """Say whether this process is the one that writes what all of them have."""
    if getattr(_LOCAL, "alone", False):
        return True
    if _current is ALONE and is_launched() and not is_worker():  # nothing was fitted so far
        return os.environ["RANK"] == "0"
    return _current.is_first


def _forked():
    if dist.is_available() and dist.is_initialized():  # by connections of the parent
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


# -- tensors of which each process has a part: torch's DTensor, whose import takes a second -------


def is_part(value):
    """Say whether a process has only a part of a tensor."""
    return hasattr(value, "full_tensor")


def full(value):
    """Return the whole of a tensor, or of the tensors in a dict."""
    if isinstance(value, dict):
        return {name: full(item) for name, item in value.items()}
    return value.full_tensor() if is_part(value) else value


def like(value, own):
    """Return a whole tensor divided as `own` is, on its device."""
    if not is_part(own) or value.shape != own.shape:  # a count of steps, for one
        return value.to(own.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    whole = value.to(own.device)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


def load(module, state):
    """Give a module a whole state."""
    own = module.state_dict()
    if not any(map(is_part, own.values())):
        module.load_state_dict(state)
        return
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(like(state[name], value))
