# SPDX-License-Identifier: Apache-2.0
"""The choice of the window T and the period of collection, by cost and resolution.

Modules
-------
advice  a table of periods with their cost and resolution
costs   the constants behind it, assumed or calibrated on a host
"""

from typing import TYPE_CHECKING

from pmlkit.errors import names_its_function
from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.period.advice import (
        BUFFER_ENTRIES,
        Advice,
        advise,
        bitmap_bytes,
        log_bytes,
        ring_slots,
    )

__all__ = ["BUFFER_ENTRIES", "Advice", "advise", "bitmap_bytes", "log_bytes", "ring_slots"]

__getattr__ = lazy("pmlkit.period", dict.fromkeys(__all__, "period.advice"))
names_its_function("pmlkit.period", "pmlkit.period.advise")
