# SPDX-License-Identifier: Apache-2.0
"""How far the memory model is off, against guests that really had too little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.schema import PAGE_SIZE
from pmlkit.techniques.channel import known_memory
from pmlkit.techniques.memory import Guest, MemoryModel
from pmlkit.techniques.recorded import Recorded

if TYPE_CHECKING:
    from pmlkit.trace import Trace
    from pmlkit.types import Json

__all__ = ["against"]


def against(limited: Trace, roomy: Trace | Recorded, model: MemoryModel | None = None) -> Json:
    """Replay a recording made with room for all in as much memory as another guest had.

    Parameters
    ----------
    limited : Trace
        Recorded with too little memory and a swap disk (``pmlkit record --memory --swap``).
    roomy : Trace or Recorded
        Of the same workload, with room for all of it.
    model : MemoryModel, optional

    Returns
    -------
    dict
        ``ins``, ``outs``: pages read from swap and written there, as the guest counted them;
        ``model_ins``, ``model_outs``: the model's.
    """
    recorded = roomy if isinstance(roomy, Recorded) else Recorded.of(roomy)
    if limited.guest is None or recorded.guest is None:
        raise UsageError("samples of both guests are needed: record them with `pmlkit record`")
    real = limited.guest.iloc[-1]
    # Both guests have the same room for pages: the kernel's image is larger in the larger one.
    memory_pages = known_memory(recorded.name, recorded.memory_pages)
    image = memory_pages - int(recorded.guest["total_bytes"].iloc[-1]) // PAGE_SIZE
    guest = Guest(recorded, model or MemoryModel())
    guest.resize(int(real["total_bytes"]) // PAGE_SIZE + image)
    guest.advance(recorded.n_rounds)
    return {
        "ins": int(real["pswpin"]),
        "model_ins": guest.swap_ins + guest.refaults,
        "outs": int(real["pswpout"]),
        "model_outs": guest.swap_outs,
    }
