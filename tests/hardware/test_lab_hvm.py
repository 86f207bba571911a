# SPDX-License-Identifier: Apache-2.0
"""An HVM domain that runs, without devices or with QEMU's VGA, and its log is exact."""

import gzip

import numpy as np
import pytest
from lab_case import LEAVES, data, frames, needs_lab, own, rounds

from pmlkit.errors import UsageError
from pmlkit.recordings import PATCHES
from pmlkit.sources import lab as lab_source
from pmlkit.sources.lab.disks import AGENT
from pmlkit.sources.lab.session import LabOptions

pytestmark = [needs_lab, pytest.mark.timeout(1800)]


def test_known_set_is_exact_in_every_round(lab):
    trace = lab.run("known", hvm=True)
    assert trace.n_rounds == 8
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800
        assert own(entries)


def test_reads_are_found_under_the_logged_tables(lab):
    trace = lab.run("reads", hvm=True, rounds=4, harvest="both", page_tables="mark")
    for _, entries in list(rounds(trace.pml))[1:]:
        assert LEAVES[4] <= set(entries.gfn)
    touched = {n: set(e.gfn) for n, e in rounds(trace)}
    assert all(frames(trace, "read") <= found for found in list(touched.values())[1:])


# ------------------------------------------------------------------------------
# Debian's QEMU as the device model: it tracks the video memory, and draws it, all the time.


VIDEO = set(range(0xF0000, 0xF0000 + 75))
DRAWN_ROUNDS = 80  # they have to take as long as some pictures
DRAWN = f"""\
({AGENT}) & agent=$!
shots=0
while kill -0 $agent 2>/dev/null; do
    shots=$((shots + 1))
    xl qemu-monitor-command g "screendump /tmp/$shots.ppm" >/dev/null
done
wait $agent; status=$?
xl qemu-monitor-command g "screendump /tmp/last.ppm"
for shot in /tmp/*.ppm; do gzip -c $shot >/out/${{shot#/tmp/}}.gz; rm $shot; done
(exit $status)
"""


@pytest.fixture(scope="module")
def drawn(lab):
    guest = str(PATCHES / "tests" / "vga.c")
    # A debug build fills memory with a pattern: whatever is in the picture was drawn in a round.
    return lab.run(guest, hvm=True, qemu=True, xen_debug=True, rounds=DRAWN_ROUNDS, script=DRAWN)


def test_the_log_is_exact_while_qemu_tracks_the_video_memory(drawn):
    written = {*range(4096, 4396), *range(5096, 6596)} | VIDEO
    assert drawn.n_rounds == DRAWN_ROUNDS
    for _, entries in rounds(drawn):
        assert set(data(entries).gfn) == written
        assert len(data(entries)) == len(written) == 1875
        assert own(entries)


def _white(path):
    """Return the numbers of a picture's white dots; None before the guest has drawn on it."""
    head, _, dots = gzip.decompress(path.read_bytes()).partition(b"\n255\n")
    assert head.split()[0] == b"P6"
    dots = np.frombuffer(dots, np.uint8).reshape(-1, 3)
    told = set(np.unique(dots)) <= {0, 255}  # QEMU's own words are grey
    return set(np.flatnonzero(dots[:, 0]).tolist()) if told else None


def test_qemu_has_seen_all_that_was_drawn_meanwhile(drawn):
    spool = drawn.path.with_name(drawn.path.name + ".spool")
    every = {page * 4096 + n for page in range(75) for n in range(1, DRAWN_ROUNDS + 1)}
    pictures = [_white(path) for path in spool.glob("[0-9]*.ppm.gz")]
    assert len(pictures) >= 3
    # What these lack, QEMU has drawn since because it was told that it is dirty.
    assert any(white is not None and white < every for white in pictures)
    assert _white(spool / "last.ppm.gz") == every


def test_qemu_needs_an_hvm_domain(tmp_path):
    with pytest.raises(UsageError, match="HVM"):
        lab_source.run("known", tmp_path / "x.trace", LabOptions(qemu=True))


def test_a_linux_guest_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="Linux guest"):
        lab_source.run("hotcold", tmp_path / "x.trace", LabOptions(hvm=True))
