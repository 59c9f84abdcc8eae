"""What the displays share: colours, axes, and matplotlib, which drawing imports."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skfocal._utils.optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# The colours of Okabe and Ito, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
LINES = ("-", "--", "-.", ":")
HATCHES = (None, "///", "...", "xxx")


def some(epochs: NDArray[np.int64], most: int = 15) -> NDArray[np.int64]:
    """Return at most `most` of the epochs, evenly spaced, so that their numbers fit."""
    return epochs[:: -(-len(epochs) // most)]


def check_epochs(estimator: Any) -> None:
    """Raise ValueError if nothing was trained that could be drawn."""
    if not len(estimator.history_):
        raise ValueError("estimator was fitted with max_epochs=0, so it has no epochs to draw.")


def pyplot(display: object) -> Any:
    """Return matplotlib's pyplot for a display or its class."""
    name = display.__name__ if isinstance(display, type) else type(display).__name__
    return import_optional("matplotlib.pyplot", name, "examples")


def axes_of(display: object, ax: "Axes | None") -> "Axes":
    """Return the given axes, or those of a new figure."""
    plt = pyplot(display)
    if ax is not None:
        return ax
    new: Axes = plt.subplots(layout="constrained")[1]
    return new
