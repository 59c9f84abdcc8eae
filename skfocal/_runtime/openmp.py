"""Let the threads of the OpenMP library sleep while they wait for work.

By default they spin for a while, which takes the processor from everything else on the machine:
with two fits at once, or beside another busy process, each fit takes several times as long.
Asleep, they lose nothing that could be measured on a quiet machine (docs/benchmarks/busy.md). The
library reads the variable when torch loads it, so this has no effect after somebody else has
imported torch, and what the user has set stays.

The variable stays in the environment, for the workers of a search: scikit-learn passes them the
filters for warnings, of which one is torch's, so they import torch before anything of skfocal.
"""

import os
import sys

_SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

if "torch" not in sys.modules and not any(name in os.environ for name in _SAID):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
