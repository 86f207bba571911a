# SPDX-License-Identifier: Apache-2.0
"""One clock, and one table of prices that is held to the measurements."""

import pytest

from experiments import prices as made
from experiments import quoted
from pmlkit import costs
from pmlkit.costs import Clock, Cost, Price
from pmlkit.errors import ClocksDiffer

QEMU, LAB = Clock("an emulator (recorder)", 8.0), Clock("an emulator (lab)", 10.0)
HOST = Clock("the host web1")


def test_the_table_is_what_the_measurements_say():
    assert made.TABLE.read_text() == made.text()


def test_what_is_measured_is_near_what_was_seen():
    """By hand, of the files in data/: two rounds of a guest, two guests, one table."""
    prices = costs.prices()
    # rrww: 8,331 pages in 377,050 instructions, 143 in 57,712.
    assert prices["log_entries"].price == pytest.approx((377_050 - 57_712) / (8331 - 143), rel=0.01)
    # touch has 877 pages and 124,792 instructions, reads 12 and 26,139, with tables told apart.
    assert prices["marked_entries"].price == pytest.approx((124_792 - 26_139) / 865, rel=0.05)
    # memory-512 and reads-4 find the same pages, and look at 132,096 and 17,408 flags.
    each = (530_774 - 141_521) / (132_096 - 17_408)
    assert prices["pages_scanned"].price == pytest.approx(each, rel=0.2)
    # rrww's sample looks at 1,344 flags, touch's at 480: 72,193 and 30,256 instructions.
    each = (72_193 - 30_256) / (1344 - 480)
    assert prices["flags_read"].price == pytest.approx(each, rel=0.2)
    assert prices["flag_looks"].price == pytest.approx(30_256 - 480 * each, rel=0.8)
    assert prices["pml_exits"].price == 15_991
    # The parts of a guided round that are nobody's choice: two guests' tables and walks.
    assert 1632 < prices["tables_found"].price < 4018
    assert (prices["write_faults"].price, prices["hypercalls"].price) == (2733, 817)


def test_the_patches_readme_quotes_the_prices():
    text = (made.ROOT / "hypervisor-patches" / "README.md").read_text()
    assert {"price.log_entries", "price.marked_entries"} <= set(quoted.keys(text))


def test_every_price_says_where_it_is_from():
    for event, price in costs.prices().items():
        assert price.event == event and price.insn > 0 and price.what
        assert price.kind in ("measured", "published", "assumed") and price.source
        assert (price.unit == costs.INSTRUCTIONS) == (price.kind == "measured")
        assert price.unit == costs.INSTRUCTIONS or price.unit in costs.PROCESSORS


def test_what_is_stated_in_ns_is_converted_by_the_clock_of_its_processor():
    prices = costs.prices()
    assert prices["pages_hashed"].insn == pytest.approx(3000)  # 1,000 ns at 3 GHz
    assert prices["polled_seconds"].insn == pytest.approx(26e6)  # 13 ms at 2 GHz
    assert prices["faults"].insn == pytest.approx(3 * 940 + 3000)  # and a transition
    assert prices["pml_exits"].insn == pytest.approx(15_991 + 3000)
    assert prices["pages_hashed"].stated.startswith("1,000 ns at 3 GHz; ")
    assert prices["pml_exits"].stated.endswith("; and a transition")


def test_work_is_events_times_prices():
    table = {
        "faults": Price("faults", 100, costs.INSTRUCTIONS, False, "", "measured", ""),
        "rounds": Price("rounds", 7, "ns at 3 GHz", False, "", "assumed", ""),
    }
    assert costs.work({"faults": 3, "rounds": 2}, table) == Cost(pytest.approx(342))


@pytest.mark.parametrize("clock", [QEMU, LAB])
def test_a_share_is_of_instructions_in_instructions(clock):
    in_a_second = 1e9 / clock.ns_per_insn
    assert clock.share(Cost(in_a_second / 8), 1e9) == 0.125
    # A time of the one emulator, as a share of the other's: by its instructions.
    assert clock.share(Cost(800, QEMU), 100 * clock.ns_per_insn) == pytest.approx(1)


def test_a_share_is_of_time_in_time_of_one_machine():
    assert HOST.share(Cost(5e6, Clock("the host web1")), 1e9) == 0.005
    assert HOST.share(Cost(5e6, HOST), 0) == 5e6  # no time: no division by zero


@pytest.mark.parametrize(
    ("cost", "clock", "units"),
    [
        (Cost(1000), HOST, ("instructions", "the time of the host web1")),
        (Cost(1000, HOST), QEMU, ("the time of the host web1", "instructions")),
        (Cost(1000, HOST), Clock("the host db1"), ("the time of the host web1",) * 0),
        (Cost(1000, QEMU), HOST, ("the time of an emulator (recorder)",) * 0),
    ],
)
def test_unlike_clocks_refuse(cost, clock, units):
    with pytest.raises(ClocksDiffer, match="`ns_per_insn`.*calibration") as caught:
        clock.share(cost, 1e9)
    assert not units or (caught.value.cost, caught.value.duration) == units


def test_the_length_of_an_instruction_relates_them():
    assert HOST.given(0.5).share(Cost(1000), 1e6) == pytest.approx(0.0005)
    assert QEMU.share(Cost(1000, HOST.given(0.5)), 1e6) == pytest.approx(2000 * 8 / 1e6)
    assert QEMU.given(0.5) == QEMU  # what a trace says stays


def test_clocks_say_how_fast_they_are():
    assert QEMU.text == "125 M instructions a second"
    assert LAB.text == "100 M instructions a second"
    assert HOST.text == "time of the host web1"


def test_what_a_linux_host_does_is_near_what_was_seen():
    """By hand, of the cheapest rounds in 64 and 32 MiB: 8,192 pages; and of 2,560 pages read."""
    prices = costs.prices()
    each = (16_275_494 - 7_965_180) / 8192
    assert prices["pages_aged"].price == pytest.approx(each, rel=0.01)
    assert prices["pages_walked"].price == pytest.approx((2_893_521 - 1_456_103) / 8192, rel=0.05)
    each = (11_260_232 - 59_043) / 2560
    assert prices["soft_dirty_reads"].price == pytest.approx(each, rel=0.01)
    # A page written has been seen to take more than twice that: see the page `models`.
    assert 2 < prices["soft_dirty_writes"].price / each < 2.5
