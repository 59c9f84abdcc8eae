"""How many processors this process may use, and what the user has said about threads."""

import math
import os
from pathlib import Path


def available_processors(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number that affinity, the quota of a container and LOKY_MAX_CPU_COUNT allow.

    This is joblib's count, for processes without joblib: an exported classifier needs none.
    """
    n = os.cpu_count() or 1
    allowed = [n, _quota(cgroup), _said_processors(n)]
    if hasattr(os, "sched_getaffinity"):
        allowed.append(len(os.sched_getaffinity(0)))
    return int(max(min(allowed), 1))


def _quota(cgroup: Path) -> float:
    """Return how many processors' time the container may use."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):  # version 1 of cgroups, or none
        files = [cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        if not all(file.exists() for file in files):
            return math.inf
        quota, period = (file.read_text().strip() for file in files)
    if quota == "max" or int(quota) <= 0:
        return math.inf
    return math.ceil(int(quota) / int(period))


def _said_processors(default: int) -> int:
    """Return the number of LOKY_MAX_CPU_COUNT."""
    said = os.environ.get("LOKY_MAX_CPU_COUNT", "").strip()
    try:
        return int(said) if said else default
    except ValueError:
        raise ValueError(
            f"LOKY_MAX_CPU_COUNT is {said!r}; set it to a whole number, or unset it"
        ) from None


def said_threads(name: str = "OMP_NUM_THREADS") -> int | None:
    """Return the number in a variable, which may be a list for nested levels.

    What is empty or no number is as good as not said, as OpenMP has it.
    """
    first = os.environ.get(name, "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None
