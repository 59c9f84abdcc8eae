"""Let the threads of the OpenMP library sleep soon while they wait for work.

By default they spin for milliseconds, which takes the processor from everything else on the
machine: with two fits at once, or beside another busy process, each fit takes several times as
long. To sleep at once costs a fit a tenth of its time on a quiet machine, for it takes long to wake
up. With a thousand turns before, some tens of microseconds, it costs half of that, and hardly more
on a busy machine (docs/benchmarks/busy.md). The library reads the variables when torch loads it, so
this has no effect after somebody else has imported torch, and what the user has set stays.

The variables stay in the environment, for the workers of a search: scikit-learn passes them the
filters for warnings, of which one is torch's, so they import torch before anything of skfocal.
"""

import os
import sys

_SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

if "torch" not in sys.modules and not any(name in os.environ for name in _SAID):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = "1000"  # of GNU's library, where it wins
