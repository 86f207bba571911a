# SPDX-License-Identifier: Apache-2.0
"""Answers of QEMU's ``query-dirty-rate``, which contain rates and no pages.

The forms are QMP's JSON (alone, or within a session of QMP, qmp-shell or virsh), the lines of HMP's
``info dirty_rate``, and those of ``virsh domstats --dirtyrate``. QEMU counts in whole MiB per
second. The start is in seconds, also where HMP prints "(ms)" (``migration/dirtyrate.c``).
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.files import read_regular
from pmlkit.interop.reading import ForeignFileError
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.types import Json, PathLike


__all__ = ["load"]

SIZE_LIMIT = 64 << 20
_UNITS_S = {"second": 1.0, "millisecond": 1e-3}
_LIMITS = {"start-time": 1 << 33, "calc-time": 1 << 30, "dirty-rate": 1 << 40, "id": 1 << 31}
_PROMPT = re.compile(r"(?:\(QEMU\)|\(qemu\)|virsh #|QMP>)[ \t]*")
_NOISE = re.compile(
    r"Welcome to |Connected to|Connection to|QEMU \S+ monitor|Type:|Escape character|\[root@|[$#] "
)
_STATUS = re.compile(r"Status: (\w+)")
_HMP = re.compile(
    r"(?P<name>Start Time|Sample Pages|Period|Mode|Dirty rate|vcpu\[\d{1,9}\], Dirty rate):"
    r" (?P<value>\S+)(?: \((?P<unit>[^)]{1,20})\))?"
)
_DOMAIN = re.compile(r"Domain: *(\S.*)")
_VIRSH = re.compile(r"dirtyrate\.([\w.]{1,60})=(\S*)")
_HMP_UNITS = {"sec": "second", "ms": "millisecond"}
_STATUSES = ("unstarted", "measuring", "measured")  # libvirt's statuses, by number
_FORMS = "is neither JSON (of QMP), nor a line of `info dirty_rate` or `virsh domstats --dirtyrate`"


def load(path: Path) -> pd.DataFrame:
    """Read consecutive answers of QEMU's ``query-dirty-rate``.

    Returns
    -------
    pandas.DataFrame
        One row per measurement: t_ns (its end, since the first one's start), asked_ns (the
        calc-time), bytes and pages that were dirtied at least once in it, mib_per_s, mode, and vcpu
        (-1: all). A rate that QEMU does not know (-1, or none) is missing, as are its bytes and
        pages. A longer calc-time gives a smaller rate, because a page counts once, even if dirtied
        repeatedly.

    Raises
    ------
    ForeignFileError
    """
    rows: list[Json] = []
    for number, answer in enumerate(_answers(path, _text(path)), start=1):
        if answer.get("status") != "measured":
            continue  # still measuring, not begun, an event, or an error
        try:
            rows += _measured(answer)
        except KeyError as error:
            why = f"is not from query-dirty-rate (it has no {error.args[0]})"
            raise ForeignFileError(path, f"answer {number}", why) from error
        except (TypeError, ValueError, AttributeError) as error:
            why = f"is not from query-dirty-rate ({str(error)[:200]})"
            raise ForeignFileError(path, f"answer {number}", why) from error
    if not rows:
        raise ForeignFileError(path, "", "contains no measured answer of query-dirty-rate")
    table = pd.DataFrame(rows)
    known = table["mib_per_s"].notna()
    for name in ("bytes", "pages", "mib_per_s"):
        table[name] = table[name].astype("int64" if known.all() else "Int64")
    return table.assign(t_ns=table["t_ns"] - (table["t_ns"] - table["asked_ns"]).min())


def _text(path: PathLike) -> str:
    data = read_regular(path, SIZE_LIMIT)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _measured(answer: Json) -> Iterator[Json]:
    unit = answer.get("calc-time-unit", "second")
    if unit not in _UNITS_S:
        raise ValueError(f"calc-time-unit is {unit!r}")
    asked_s = _number(answer, "calc-time") * _UNITS_S[unit]
    end_ns = round((_number(answer, "start-time") + asked_s) * 1e9)
    each = [(-1, answer)] if "dirty-rate" in answer or "vcpu-dirty-rate" not in answer else []
    each += [(_number(one, "id"), one) for one in answer.get("vcpu-dirty-rate", ())]
    for vcpu, one in each:
        rate = one.get("dirty-rate")
        size = pages = None
        if rate is None or rate == -1:
            rate = None
        else:
            rate = _number(one, "dirty-rate")
            size = round(rate * (1 << 20) * asked_s)
            if size >= 1 << 63:
                raise ValueError(f"dirty-rate is {rate} MiB/s for {asked_s:g} s, which is too much")
            pages = size // PAGE_SIZE
        yield {
            "t_ns": end_ns, "asked_ns": round(asked_s * 1e9), "bytes": size, "pages": pages,
            "mib_per_s": rate, "mode": str(answer.get("mode", ""))[:40], "vcpu": vcpu,
        }  # fmt: skip


def _number(answer: Json, name: str) -> int:
    value = answer[name]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 <= value < _LIMITS[name]:
        limit = f"a whole number below {_LIMITS[name]} is required"
        raise ValueError(f"{name} is {str(value)[:40]}: {limit}")
    return value


def _answers(path: PathLike, text: str) -> Iterator[Json]:
    """Yield the answers of a text in QMP's form."""
    lines = _Lines(path)
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if prompt := _PROMPT.match(text, at):
            at = prompt.end()
            if text[at : at + 1] not in ("{", "["):
                at = _end_of_line(text, at)  # skip the command
        elif text[at] in "{[":
            yield from lines.close()
            value, at = _json(path, text, at)
            yield from _of_qmp(path, value)
        else:
            stop = _end_of_line(text, at)
            if not lines.take(text[at:stop].strip()):
                raise ForeignFileError(path, f"line {_line(text, at)}", _FORMS)
            yield from lines.complete()
            at = stop
    yield from lines.close()


def _end_of_line(text: str, at: int) -> int:
    stop = text.find("\n", at)
    return len(text) if stop < 0 else stop


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _json(path: PathLike, text: str, at: int) -> tuple[object, int]:
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise ForeignFileError(path, f"line {_line(text, at)}", "is not JSON") from error


def _of_qmp(path: PathLike, value: object) -> Iterator[Json]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            continue
        answer = one.get("return", one)
        if isinstance(answer, dict):
            yield answer
        elif isinstance(answer, str):  # the answer of human-monitor-command
            lines = _Lines(path)
            if all(lines.take(line.strip()) for line in answer.splitlines() if line.strip()):
                yield from lines.complete()
                yield from lines.close()


class _Lines:
    """Collects the lines of HMP and of virsh into answers of QMP's form."""

    def __init__(self, path: PathLike) -> None:
        self._path = path
        self._domain: str | None = None
        self._open: Json = {}
        self._done: list[Json] = []

    def take(self, line: str) -> bool:
        """Add a line; return False if it has none of these forms."""
        if status := _STATUS.fullmatch(line):
            self._begin(status[1])
        elif line == "Dirty rate: (not ready)":
            pass
        elif fact := _HMP.fullmatch(line):
            self._take_hmp(fact["name"], fact["value"], fact["unit"])
        elif fact := _VIRSH.fullmatch(line):
            self._take_virsh(fact[1], fact[2])
        elif domain := _DOMAIN.fullmatch(line):
            self._take_domain(domain[1])
        else:
            return bool(_NOISE.match(line))
        return True

    def _begin(self, status: str) -> None:
        if self._open:
            self._done.append(self._open)
        self._open = {"status": status}

    def _take_hmp(self, name: str, value: str, unit: str | None) -> None:
        if name == "Start Time":
            self._open["start-time"] = _whole(value)
        elif name == "Period":
            self._open["calc-time"] = _whole(value)
            self._open["calc-time-unit"] = _HMP_UNITS.get(unit or "sec", unit)
        elif name == "Mode":
            self._open["mode"] = value
        elif name == "Dirty rate":
            self._open["dirty-rate"] = _whole(value)
        elif name.startswith("vcpu"):
            self._add_vcpu(int(name[5 : name.index("]")]), value)

    def _take_virsh(self, name: str, value: str) -> None:
        names = {"calc_start_time": "start-time", "calc_period": "calc-time"}
        names["megabytes_per_second"] = "dirty-rate"
        vcpu = re.fullmatch(r"vcpu\.(\d{1,9})\.megabytes_per_second", name)
        if name == "calc_status":
            number = _whole(value)
            known = isinstance(number, int) and 0 <= number < len(_STATUSES)
            self._begin(_STATUSES[int(number)] if known else "unknown")
        elif name == "calc_mode":
            self._open["mode"] = value
        elif name in names:
            self._open[names[name]] = _whole(value)
        elif vcpu:
            self._add_vcpu(int(vcpu[1]), value)

    def _take_domain(self, name: str) -> None:
        if self._domain not in (None, name):
            why = f"contains the rates of two domains, {self._domain} and {name}"
            raise ForeignFileError(self._path, "", why, "keep the lines of one domain")
        self._domain = name

    def _add_vcpu(self, vcpu: int, value: str) -> None:
        one = {"id": vcpu, "dirty-rate": _whole(value)}
        self._open.setdefault("vcpu-dirty-rate", []).append(one)

    def complete(self) -> Iterator[Json]:
        """Yield the complete answers."""
        done, self._done = self._done, []
        yield from done

    def close(self) -> Iterator[Json]:
        """Yield the answers, including the open one."""
        yield from self.complete()
        last, self._open = self._open, {}
        if last:
            yield last


def _whole(text: str) -> int | str:
    """Return a number; other texts are unchanged, and `_number` refuses them by name."""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
