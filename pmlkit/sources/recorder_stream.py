# SPDX-License-Identifier: Apache-2.0
"""The messages of a recording, in their order, checked: live and when a trace is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NotUnderstood
from pmlkit.kinds import ACCESS_KINDS
from pmlkit.schema import PAGE_SIZE
from pmlkit.sources.messages import Mark, Message, RoundEnd, Span, decode
from pmlkit.stream_json import LATEST_NS, MOST, Fields

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Json


__all__ = ["RecorderStream", "check_header"]

_OF_ACCESSES = np.isin(np.arange(256), ACCESS_KINDS)
_MOST_BYTES = 1 << 41  # frames have 29 bits in a message


class RecorderStream:
    """Takes the messages of a recording apart, in their order.

    Parameters
    ----------
    header : dict
        Of the spool.

    Raises
    ------
    NotUnderstood
        At once, if the header is not; `take`, if a message is not. None is to be given after that.
    """

    def __init__(self, header: Json) -> None:
        memory = Fields(header, "its header's ").whole("memory_bytes", PAGE_SIZE, _MOST_BYTES)
        if memory % PAGE_SIZE:
            raise NotUnderstood(f"its header's memory_bytes is {memory}, no whole number of pages")
        self.rounds, self._end, self._marked_ns = 0, (0, 0), 0
        self._spans: dict[int, int] = {}  # the round of the last one of each log

    def take(self, kind: int, payload: bytes) -> Any:
        """Return what a message says (`pmlkit.sources.messages.decode`)."""
        message = decode(kind, payload)
        if isinstance(message, Span):
            self._check_round(message.round, self._spans.get(kind, 0))
            self._spans[kind] = message.round
            _check_span(message)
            if kind == Message.ACCESS and not _OF_ACCESSES.take(message.kinds).all():
                raise NotUnderstood("an access that neither reads, nor writes, nor executes")
        elif isinstance(message, RoundEnd):
            self._close(message)
        elif isinstance(message, Mark):
            self._check_round(message.round, 0)
            if not self._marked_ns <= message.t_ns <= LATEST_NS or message.insn > LATEST_NS:
                raise NotUnderstood(f"a mark at {message.t_ns} ns, after {self._marked_ns} ns")
            self._marked_ns = message.t_ns
        return message

    def _check_round(self, number: int, first: int) -> None:
        if not first <= number <= self.rounds:
            raise NotUnderstood(f"it is of round {number}, and {self.rounds} were closed")

    def _close(self, end: RoundEnd) -> None:
        self._check_round(end.round, self.rounds)
        _check_span(end)
        if max(end.full_exits, end.accessed, end.dirty) > MOST:
            raise NotUnderstood("a round of more pages than there are")
        start = (end.insn_start, end.t_start_ns)
        if start != self._end and self.rounds:
            raise NotUnderstood(f"round {end.round} begins at {start[1]} ns, and the one before "
                                f"ends at {self._end[1]} ns")  # fmt: skip
        self._end = (end.insn_end, end.t_end_ns)
        self.rounds += 1


def _check_span(span: Span | RoundEnd) -> None:
    times, instructions = (span.t_start_ns, span.t_end_ns), (span.insn_start, span.insn_end)
    for first, last in (times, instructions):
        if not 0 <= first <= last <= LATEST_NS:
            raise NotUnderstood(f"it goes from {first} to {last}")


def check_header(header: Json) -> None:
    """Check what the header says beside the memory, which a trace needs and a watcher does not."""
    told = Fields(header, "its header's ")
    if not {"ns_per_insn", "period"} <= told.told.keys():
        raise NotUnderstood("its header says nothing of the clock, or of the period")
    told.choice("source", ("recorder",))
    for name in ("created", "workload", "command"):
        told.text(name, longest=1 << 16)
    told.text("cmdline", longest=1 << 16)
    period = told.object("period")
    if not {"ns", "insn"} <= period.told.keys():
        raise NotUnderstood("its header's period lacks ns or insn")
    for name in ("ns", "insn"):
        period.whole(name, 1, LATEST_NS, None)
    told.number("ns_per_insn", 1e-3, 1e9, None)
    for name in ("options", "parameters", "versions", "host"):
        told.object(name)
