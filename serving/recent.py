"""What one person did lately, as retrieval, histories and rules read it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RecentEvents:
    """What one person did lately.

    Attributes:
        item_ids: [E] of events that show interest, latest first.
        types: [E] their event types.
        times: [E] their times, in Unix seconds.
        bought: Items that the person bought.
        hidden: Items that the person does not want to see again.
    """

    item_ids: Sequence[str] = ()
    types: Sequence[str] = ()
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    bought: Sequence[str] = ()
    hidden: Sequence[str] = ()


NOTHING = RecentEvents()
