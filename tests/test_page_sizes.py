# SPDX-License-Identifier: Apache-2.0
"""Pages of other sizes: an import may have them, and every size in bytes counts them as such."""

import json
import re

import numpy as np
import pytest
from cli_case import READ, WRITE

import pmlkit
from pmlkit import advise, cli, compare, figures, frontier, interop, missratio
from pmlkit.errors import NeedsError
from pmlkit.notebook import views
from pmlkit.sources import simulator
from pmlkit.units import format_bytes

LARGE, TIMES = 65536, 16  # bytes of a page, and how many of the usual size that is
SIZES = ["wss", "kinds", "window", "percentiles", "turnover", "mrc", "mrc-time"]


@pytest.fixture
def pair(make_trace):
    """Two traces that differ only in the size of their pages."""
    rng = np.random.default_rng(1)
    events = [
        [(int(page), WRITE if page % 3 else READ) for page in rng.choice(40 + at // 2, 5, False)]
        for at in range(60)
    ]
    return [
        make_trace(
            path=f"pages-of-{size}.trace", events=events, pml=False, memory_map=[],
            domain={"name": "pages", "memory_bytes": 128 * size, "page_size": size},
        )
        for size in (LARGE // TIMES, LARGE)
    ]  # fmt: skip


def in_mib(figure):
    """Return the numbers of every line in MiB, and the limits of other axes in MiB."""
    drawn = []
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_transform() == axes.transData]
        for number, label in enumerate((axes.get_xlabel(), axes.get_ylabel())):
            if "MiB" in label:
                drawn += [line.get_xydata()[:, number] for line in lines] or [axes.get_ylim()]
    return [np.asarray(numbers, float) for numbers in drawn]


@pytest.mark.parametrize("name", SIZES)
def test_a_figure_in_mib_counts_the_size_of_a_page(pair, name):
    small, large = (in_mib(figures.draw(trace, name)) for trace in pair)
    assert small and len(small) == len(large)
    for ours, theirs in zip(small, large, strict=True):
        finite = np.isfinite(ours)
        np.testing.assert_allclose(theirs[finite], TIMES * ours[finite], atol=1e-12)


def test_several_recordings_keep_their_own_sizes(pair):
    traces = dict(zip("ab", pair, strict=True))
    lines = figures.draw(traces, "mrc").axes[0].lines
    ours, theirs = (line.get_xdata() for line in lines[:2])
    np.testing.assert_allclose(theirs, TIMES * ours)
    ours, theirs = (line.get_ydata() for line in figures.draw(traces, "wss").axes[0].lines[:2])
    np.testing.assert_allclose(theirs, TIMES * np.asarray(ours))


def test_a_table_of_several_curves_counts_the_pages_of_each(pair, capsys):
    assert cli.main(["mrc", *(str(trace.path) for trace in pair)]) == 0
    rows = [re.split(r"\s{2,}", row.strip()) for row in capsys.readouterr().out.splitlines()]
    cells = {row[0]: row[1:] for row in rows if len(row) == 3}
    sizes, curves = (LARGE // TIMES, LARGE), [missratio.of_trace(trace) for trace in pair]
    both = list(zip(curves, sizes, strict=True))
    assert cells["memory at the knee"] == [format_bytes(c.knee() * size) for c, size in both]
    pages = curves[1].pages * TIMES >> 3  # an eighth of the largest size, in the small pages
    ratios = [curves[0].at(pages), curves[1].at(pages // TIMES)]
    row = cells[f"miss ratio at {format_bytes(pages * sizes[0])}"]
    assert row == [f"{ratio:.4f}" for ratio in ratios]


def test_tables_of_notebooks_count_the_size_of_a_page(pair):
    phases, touched, memory = [], [], []
    for trace in pair:
        phases.append(views.working_sets(trace)["mean"])
        touched.append(views.overview([trace.path])["touched"])
        curves = {"exact": missratio.of_trace(trace)}
        memory.append(views.memory_for(curves, mib_pages=trace.meta.mib_pages)["knee"])
    for small, large in (phases, touched, memory):
        np.testing.assert_allclose(large, TIMES * small, rtol=0.2)  # rounded in the table


def test_damo_gets_the_bytes_of_a_page(pair, tmp_path):
    tops = []
    for number, trace in enumerate(pair):
        interop.export(trace, "damo", tmp_path / f"{number}.json")
        (record,) = json.loads((tmp_path / f"{number}.json").read_text())
        tops.append([region["end"] for s in record["snapshots"] for region in s["regions"]])
    assert tops[1] == [TIMES * end for end in tops[0]]
    back = interop.load("damo", tmp_path / "1.json", tmp_path / "back.trace")
    ours, theirs = (pmlkit.wss(t, "100ms")["bytes"].tolist() for t in (back, pair[1]))
    assert ours == theirs


@pytest.mark.parametrize(
    "use",
    [
        lambda trace, path: simulator.simulate(trace, path),
        lambda trace, path: advise(trace),
        lambda trace, path: compare.compare([trace.path], compare.plan()),
        lambda trace, path: frontier.sweep([trace.path], frontier.plan("100ms")),
    ],
)
def test_what_models_a_processor_refuses_other_pages(pair, tmp_path, use):
    with pytest.raises(NeedsError, match=r"no pages of 4 KiB \(its pages have 64 KiB\): import it"):
        use(pair[1], tmp_path / "out.trace")
    assert not (tmp_path / "out.trace").exists()


def test_an_import_with_another_size_of_pages_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("obj\n" + "".join(f"{n % 7}\n" for n in range(50)))
    words = ["--columns", "obj=obj", "--page-size", "64KiB", "-o", str(tmp_path / "x.trace")]
    assert cli.main(["import", "csv", str(tmp_path / "x.csv"), *words]) == 0
    capsys.readouterr()
    assert cli.main(["advise", str(tmp_path / "x.trace")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("import it again, with --page-size 4096\n")
