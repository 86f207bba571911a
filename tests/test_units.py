# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree import tracked

from pmlkit import units
from pmlkit.errors import UsageError
from pmlkit.units import Window


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", 250_000_000),
        ("1s", 10**9),
        ("1.5 s", 1_500_000_000),
        ("0.1s", 10**8),
        ("10us", 10_000),
        ("10µs", 10_000),  # micro sign
        ("10μs", 10_000),  # Greek mu
        ("7ns", 7),
        ("2min", 120 * 10**9),
        ("1h", 3600 * 10**9),
        (" 3 MS ", 3_000_000),
        ("0s", 0),
        ("0", 0),  # the only one whose unit does not matter
        (" 0.0 ", 0),
        (7, 7),
        (np.int64(7), 7),  # of a table's column
    ],
)
def test_durations(text, ns):
    assert units.parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "1 fortnight", "1e3s", "0.5ns", "1.s", "5r", "nan s", "1s 2ms", -1, 1.5, True],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="250ms"):
        units.parse_duration_ns(text)


@pytest.mark.parametrize("text", ["10", "1.5", " 3 "])
def test_a_number_without_its_unit_is_told_so(text):
    for read in (units.parse_duration_ns, units.parse_window):
        with pytest.raises(UsageError, match=f"has no unit: write it as {text.strip()}ms"):
            read(text)


def test_windows():
    assert units.parse_window("10ms") == Window(ns=10_000_000)
    assert units.parse_window("5r") == Window(rounds=5)
    assert units.parse_window(10**9) == units.parse_window(np.int64(10**9)) == Window(ns=10**9)
    assert units.parse_window(Window(rounds=2)) == Window(rounds=2)
    assert [str(units.parse_window(t)) for t in ("1000ms", "5r")] == ["1 s", "5r"]


@pytest.mark.parametrize("text", ["0s", "0r", "5", "r", "1.5r", "-5r", 0, -3, None, True, 1.5])
def test_what_is_no_window_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="5r"):
        units.parse_window(text)


def test_a_window_is_either_time_or_rounds():
    for both_or_none in ({}, {"ns": 1, "rounds": 1}):
        with pytest.raises(UsageError, match="exactly one"):
            Window(**both_or_none)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256M", 256 << 20),
        ("400MB", 400 << 20),
        ("400MiB", 400 << 20),
        ("1.5G", 3 << 29),
        ("4k", 4096),
        ("2T", 2 << 40),
        ("4096", 4096),
        ("512B", 512),
    ],
)
def test_sizes(text, size):
    assert units.parse_size_bytes(text) == size


def test_the_unit_of_a_bare_number_is_the_callers():
    assert units.parse_size_bytes("256", bare="M") == 256 << 20


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "0.3B", "1MM"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="256M"):
        units.parse_size_bytes(text)


@pytest.mark.parametrize(
    "read", [units.parse_duration_ns, units.parse_window, units.parse_size_bytes]
)
def test_what_no_machine_counts_is_refused(read):
    for text in ("9999999999h", "9" * 20 + "r", "9999999P"):
        with pytest.raises(UsageError):
            read(text)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1", None])
def test_what_is_no_count_is_refused(wrong):
    units.check_count("m", 1, "uses")
    with pytest.raises(UsageError, match="m is .*uses, 1 or more"):
        units.check_count("m", wrong, "uses")


def test_a_count_has_64_bits_at_most():
    units.check_count("m", 2**63 - 1, "uses")
    with pytest.raises(UsageError, match=r"m is 9223372036854775808, too large"):
        units.check_count("m", 2**63, "uses")


@pytest.mark.parametrize("text", ["0", "-1%", "200%", "nan", "inf", "1e400", "", "%", 2, 0, True])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="share"):
        units.parse_share(text)


@given(st.floats(1e-6, 1))
def test_a_share_is_a_number_or_a_percentage(share):
    assert units.parse_share(share) == share
    for text in (f"{100 * share!r}%", f"{100 * share!r}"):
        assert units.parse_share(text) == pytest.approx(share)
    assert units.parse_ratio(repr(share)) == share
    assert units.parse_ratio(f"{100 * share!r}%") == pytest.approx(share)


@pytest.mark.parametrize("text", ["1.01", "101%", "-0.1", "nan", "inf", "", "x", 2, True])
def test_what_is_no_ratio_is_refused(text):
    with pytest.raises(UsageError, match="ratio"):
        units.parse_ratio(text)


def test_a_guests_memory_is_within_its_limits():
    units.check_memory_mib(64, (64, 3072), "the recorder")
    with pytest.raises(UsageError, match="1 TiB of memory: give it 64 MiB to 3 GiB"):
        units.check_memory_mib(1 << 20, (64, 3072), "the recorder")


def test_formats():
    assert units.format_bytes(0) == "0 B"
    assert units.format_bytes(1023) == "1023 B"
    assert units.format_bytes(400 << 20) == "400 MiB"
    assert units.format_bytes(3 << 29) == "1.5 GiB"
    assert units.format_ns(0) == "0 ns"
    assert units.format_ns(250_000_000) == "250 ms"
    assert units.format_ns(1_500_000_000) == "1.5 s"
    assert units.format_ns(60_406_200_000) == "1.01 min"
    assert units.exact_ns(90 * 10**9) == "90 s"
    assert units.exact_bytes(3073 << 20) == "3073 MiB"


def test_shares_have_three_digits_and_a_space_before_the_sign():
    shares = (0, 0.5, 0.12345, 0.0042, 1, 12.345, -0.0314, 1e-7)
    texts = ("0 %", "50 %", "12.3 %", "0.42 %", "100 %", "1234 %", "-3.14 %", "0.00001 %")
    assert tuple(units.format_share(share) for share in shares) == texts
    assert units.format_share(0.12345, digits=2) == "12 %"
    assert units.format_share(0.996, digits=2) == "100 %"


def test_no_module_formats_shares_on_its_own():
    own = re.compile(r""":[^{}"]*%}|{[^{}]*:[^{}]*} %""")
    texts = {path: own.findall(path.read_text()) for path in tracked("pmlkit/*.py")}
    assert {path: found for path, found in texts.items() if found} == {}


@given(st.integers(0, 10**15))
def test_what_was_asked_for_is_written_exactly(value):
    assert units.parse_duration_ns(units.exact_ns(value)) == value
    assert units.parse_size_bytes(units.exact_bytes(value)) == value


@given(st.integers(0, 1 << 60))
def test_what_was_measured_has_three_digits_without_an_exponent(value):
    for text in (units.format_ns(value), units.format_bytes(value)):
        number = text.split()[0]
        assert "e" not in number
        assert len(number.replace(".", "").lstrip("0")) <= (3 if "." in number else 20)
    number, unit = units.format_bytes(value).split()
    assert float(number) * units.parse_size_bytes(f"1{unit}") == pytest.approx(value, rel=0.005)


@given(
    st.sampled_from(["us", "ms", "s", "min", "h", "KiB", "MiB", "GiB", "TiB", "PiB"]),
    st.floats(0.99, 1.01),
    st.sampled_from([1, -1]),
)
def test_a_rounded_number_never_reaches_the_next_unit(unit, many, sign):
    is_time = unit in _RATIOS
    parse = units.parse_duration_ns if is_time else units.parse_size_bytes
    size = parse(f"1{unit}")
    text = (units.format_ns if is_time else units.format_bytes)(sign * many * size)
    number, written = text.split()
    parts = 1024 if not is_time else _RATIOS[unit]
    assert abs(float(number)) < parts or written == unit, text
    assert float(number) * parse(f"1{written}") == pytest.approx(sign * many * size, rel=0.005)


_RATIOS = {"us": 1000, "ms": 1000, "s": 1000, "min": 60, "h": 60}  # to the next smaller unit


def test_what_rounds_up_to_a_unit_is_written_in_it():
    texts = {999_900_000: "1 s", 999_400_000: "999 ms", 59_960_000_000: "1 min", -999_900: "-1 ms"}
    assert {ns: units.format_ns(ns) for ns in texts} == texts
    assert units.format_bytes((1 << 30) - 1) == "1 GiB"
    assert units.format_bytes(1000 << 20) == "1000 MiB"


@given(st.integers(0, 10**6), st.sampled_from(["ns", "us", "ms", "s", "min", "h"]))
def test_whole_numbers_scale_exactly(number, unit):
    one = units.parse_duration_ns(f"1{unit}")
    assert units.parse_duration_ns(f"{number}{unit}") == number * one
