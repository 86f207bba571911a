# SPDX-License-Identifier: Apache-2.0
"""Stock log-dirty: what live migration uses, on any Xen."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from pmlkit.xen.binding import XenError, ffi
from pmlkit.xen.xenctrl import Control

if TYPE_CHECKING:
    from typing import Any, Self


class LogDirty:
    """A domain's log-dirty mode: on from the start until it is closed. A context manager.

    Parameters
    ----------
    domid : int

    Attributes
    ----------
    pages : int
        Frames that a bitmap covers.

    Raises
    ------
    MissingLibrary, XenError
    """

    def __init__(self, domid: int) -> None:
        self.domid, self._n = domid, 0
        self._control: Any = Control()  # None once it is let go
        try:
            self.pages = self._control.maximum_gpfn(domid) + 1
            self._n = -(-self.pages // 32768)
            self._buffer, self._bits = self._control.buffer(self._n)
            self._control.log_dirty(domid, True)
        except BaseException:
            self._free()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close_round(self) -> Any:
        """Read and clear the bitmap.

        Returns
        -------
        tuple
            Dirty bitmap (a buffer that the next call overwrites; least significant bit first),
            write faults taken, pages that are dirty, and the times (ns) at which the call began
            and ended.
        """
        view = ffi().buffer(self._bits, self._n * 4096)
        ffi().memmove(view, bytes(len(view)), len(view))
        began = time.monotonic_ns()
        faults, dirty = self._control.clean(self.domid, self._buffer, self.pages)
        ended = time.monotonic_ns()
        return memoryview(view)[: -(-self.pages // 8)], faults, dirty, began, ended

    def release(self) -> None:
        """Let go of it without switching it off: it belongs to a migration now."""
        self._free()

    def close(self) -> None:
        """Switch it off. Closing twice does no harm."""
        if self._control is None:
            return
        try:
            self._control.log_dirty(self.domid, False)
        except XenError as error:
            if error.errno != errno.ESRCH:  # a domain that is gone has it no longer
                raise
        finally:
            self._free()

    def _free(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            if self._n and hasattr(self, "_buffer"):
                control.free(self._buffer, self._n)
            control.close()
