# SPDX-License-Identifier: Apache-2.0
"""A PML written down write by write, to hold others against."""


def hardware(writes, capacity, rearm, windows_per_round):
    """Yield (round, vcpu, drained because full, its pages) of each drained buffer, in order."""
    dirty, buffers, now = set(), {}, None

    def drain_all():
        for cpu in sorted(buffers):
            if buffers[cpu]:
                yield now, cpu, False, buffers[cpu]
        buffers.clear()

    for window, page, cpu in writes:
        if window // windows_per_round != now:
            yield from drain_all()
            now = window // windows_per_round
            if rearm != "never":
                dirty.clear()
        if page in dirty:
            continue
        if len(buffers.setdefault(cpu, [])) == capacity:
            yield now, cpu, True, buffers[cpu]
            if rearm == "flush":
                dirty -= set(buffers[cpu])
            buffers[cpu] = []
        dirty.add(page)
        buffers[cpu].append(page)
    yield from drain_all()
