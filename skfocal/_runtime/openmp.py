"""Load torch with threads that sleep while they wait for work.

By default the threads of the OpenMP library spin for a while, which takes the processor from
everything else on the machine: with two fits at once, or beside another busy process, each fit
takes several times as long. Asleep, they lose nothing that could be measured on a quiet machine
(docs/benchmarks/busy.md). The library reads the variable when it is loaded, so this has no effect
after somebody else has imported torch, and what the user has set stays.
"""

import os
import sys

__all__ = ["torch"]

_POLICY = "OMP_WAIT_POLICY"
_SAID = (_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def load() -> None:
    """Import torch, with the environment as it was before."""
    if "torch" in sys.modules or any(name in os.environ for name in _SAID):
        return
    os.environ[_POLICY] = "PASSIVE"
    try:
        import torch  # noqa: F401
    finally:
        del os.environ[_POLICY]


load()

import torch  # noqa: E402  for those who need it by name
