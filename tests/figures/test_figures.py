# SPDX-License-Identifier: Apache-2.0
"""The figures: sizes, files, data, and that nothing is clipped or computed differently."""

import re
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from factories import make_trace as write_trace
from full_disk import fill_at
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.contour import ContourSet
from overlaps import faults
from PIL import Image
from waiting import HANG_S

import pmlkit
from pmlkit import figures, workingset
from pmlkit.errors import NeedsError, OutputError, UsageError
from pmlkit.figures.heat import cells
from pmlkit.figures.style import styled
from pmlkit.trace.reader import Kind, Trace

ALL = sorted(figures.FIGURES)
PHASES = [("start", 0), ("fill", 6), ("look up", 14), ("idle", 34)]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return Trace.open(
        write_trace(
            folder / "some.trace",
            rounds=40,
            pages=600,
            phases=PHASES,
            regions=[("buffer", 100, 50)],
            guest=True,
        )
    )


@pytest.fixture(scope="module")
def drawn(trace):
    """Every figure, by its name."""
    return {name: figures.draw(trace, name, window="50ms") for name in ALL}


@pytest.fixture(scope="module")
def saved(drawn, tmp_path_factory):
    """Every figure's files, by the figure's name."""
    folder = tmp_path_factory.mktemp("saved")
    return {name: figures.save(figure, folder / name) for name, figure in drawn.items()}


def by_suffix(files, suffix):
    return [path for path in files if path.suffix == suffix]


@pytest.mark.parametrize("columns, inches", [(1, 3.33), (2, 7.0)])
@pytest.mark.parametrize("name", ALL)
def test_figure_has_the_width_of_its_columns_and_nothing_is_clipped(trace, name, columns, inches):
    figure = figures.draw(trace, name, window="50ms", columns=columns)
    assert figure.get_size_inches()[0] == inches
    assert figure.caption.startswith("some: ")
    assert all(len(frame) for frame in figure.data.values())
    assert not styled(faults)(figure)


@pytest.mark.parametrize("name", ALL)
def test_pdf_embeds_truetype_fonts_and_has_no_date(saved, name):
    (pdf,) = by_suffix(saved[name], ".pdf")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/CIDFontType2" in content and b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"/CreationDate" not in content


@pytest.mark.parametrize("name", ALL)
def test_svg_needs_no_font_and_has_no_date(saved, name):
    (svg,) = by_suffix(saved[name], ".svg")
    content = svg.read_text()
    assert 'width="239.76pt"' in content  # 3.33 inches
    assert "<text" not in content and "font-family" not in content
    assert "<dc:date>" not in content


@pytest.mark.parametrize("name", ALL)
def test_png_is_dense_enough_for_print_and_holds_the_caption(drawn, saved, name):
    (png,) = by_suffix(saved[name], ".png")
    with Image.open(png) as image:
        assert image.width == 999  # 3.33 inches at 300 dpi
        assert image.info["Description"] == drawn[name].caption


@pytest.mark.parametrize("name", ALL)
def test_the_data_is_saved_as_csv_and_parquet(drawn, saved, name):
    data = drawn[name].data
    csv, parquet = by_suffix(saved[name], ".csv"), by_suffix(saved[name], ".parquet")
    assert len(csv) == len(parquet) == len(data)
    for path, frame in zip(parquet, data.values(), strict=True):
        read = pd.read_parquet(path)
        pd.testing.assert_frame_equal(read, frame.reset_index(drop=True), check_dtype=False)
        assert list(pd.read_csv(path.with_suffix(".csv")).columns) == list(frame.columns)


@pytest.mark.parametrize("name", ["hotcold", "rrww"])  # sizes fall off at cliffs
def test_each_line_of_equal_size_has_its_label(name):
    axes = figures.surface(pmlkit.open(name)).axes[0]
    (lines,) = (c for c in axes.collections if isinstance(c, ContourSet))
    sizes = {f"{level:g} MiB" for level in lines.levels}
    assert {text.get_text() for text in lines.labelTexts} == sizes and len(sizes) > 1


@pytest.mark.parametrize("name", ["wss", "heat", "surface"])
def test_saving_twice_gives_the_same_bytes(trace, saved, name, tmp_path):
    again = figures.save(figures.draw(trace, name, window="50ms"), tmp_path / name)
    assert [path.name for path in again] == [path.name for path in saved[name]]
    for old, new in zip(saved[name], again, strict=True):
        assert old.read_bytes() == new.read_bytes(), new.name


def test_the_numbers_are_those_of_workingset(trace):
    wss = figures.wss_by_kind(trace, "50ms").data["wss"]
    for column, kinds in {"used": "rwx", "read": "r", "written": "w", "executed": "x"}.items():
        expected = workingset.estimate(trace, "50ms", "sliding", kinds=kinds)
        assert wss[f"{column}_pages"].tolist() == expected["pages"].tolist()
        assert wss["t_ns"].tolist() == expected["t_ns"].tolist()
    pml = figures.pml_against_all(trace, "50ms").data["wss"]
    assert pml["logged_pages"].tolist() == wss["written_pages"].tolist()


def test_a_change_of_the_working_set_is_what_came_and_what_left(trace):
    figure = figures.turnover(trace, "50ms")
    expected = workingset.turnover(trace, "50ms")
    pd.testing.assert_frame_equal(figure.data["turnover"], expected)
    whole = expected[expected["full"]]
    came, left = (line.get_ydata() for line in figure.axes[0].lines[:2])
    assert len(whole) > 2
    assert came[1:].tolist() == (whole["came"][1:] / 256).tolist()
    assert left[1:].tolist() == (-whole["left"][1:] / 256).tolist()


def test_one_window_has_no_change(trace):
    figure = figures.turnover(trace, trace.duration_ns)
    assert len(figure.data["turnover"]) == 1


def test_what_pml_misses_is_shaded_as_the_caption_says(trace):
    figure = figures.pml_against_all(trace, "50ms")
    shaded = [c for c in figure.axes[0].collections if isinstance(c, FillBetweenPolyCollection)]
    assert len(shaded) == 1 and "shaded" in figure.caption
    assert not any(
        isinstance(c, FillBetweenPolyCollection)
        for c in figures.wss_by_kind(trace, "50ms").axes[0].collections
    )


def test_start_and_end_limit_what_is_shown(trace):
    figure = figures.wss_over_time(trace, "50ms", start="100ms", end="200ms")
    assert figure.data["wss"]["t_ns"].between(100_000_000, 200_000_000).all()
    assert figure.axes[-1].get_xlim() == (0.1, 0.2)
    assert figures.heat_map(trace, end="100ms").data["cells"]["t_end_ns"].max() <= 100_000_000


def test_a_long_trace_is_thinned_out_but_not_shortened(make_trace):
    long = make_trace(events=[[(1, Kind.READ)]] * 4000)
    wss = figures.wss_over_time(long, "50ms").data["wss"]
    assert 1000 <= len(wss) <= 1500
    assert wss["t_ns"].iloc[-1] == pytest.approx(long.duration_ns, rel=0.01)


@pytest.mark.parametrize("ram_mib, panels", [(16, 2), (4, 1)])
def test_the_scale_changes_where_the_memory_is_far_larger(make_trace, ram_mib, panels):
    small = make_trace(
        events=[[(g, Kind.READ) for g in range(512)]] * 4, memory_bytes=ram_mib << 20, guest=True
    )
    figure = figures.wss_over_time(small, "10ms")
    assert len(figure.axes) == panels
    limits = [axes.get_ylim() for axes in figure.axes]  # from the top
    assert limits[-1][0] == 0 and limits[0][1] > ram_mib
    assert panels == 1 or limits[0][0] == limits[1][1]
    figure.draw_without_rendering()
    labels = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(labels) == 3  # RAM, allocated, used
    for index, box in enumerate(labels):
        assert not any(box.overlaps(other) for other in labels[:index])


BIG = {"memory_bytes": 16 << 30}
ODD = {
    "one round": {"events": [[(1, Kind.WRITE)]]},
    "one page": {"events": [[(1, Kind.WRITE)]] * 30},
    "nothing": {"events": [[]] * 10},
    "executions only": {"events": [[(7, Kind.EXEC)]] * 10},
    "far frames": {"events": [[(0, Kind.READ), (1 << 21, Kind.WRITE)]] * 5, **BIG},
    "many phases": {"rounds": 60, "phases": [(f"phase {i}", i * 3) for i in range(20)]},
}


@pytest.fixture(scope="module", params=sorted(ODD))
def odd(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("odd") / "x.trace"
    return Trace.open(write_trace(path, **ODD[request.param]))


@pytest.mark.parametrize("name", ALL)
def test_odd_traces_are_drawn_too(odd, name):
    assert_can_be_drawn(figures.draw(odd, name, window="10ms"))


def assert_can_be_drawn(figure):
    figure.set_layout_engine("none")  # most of the time that drawing takes
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba())[..., :3].min() < 255


@pytest.mark.parametrize("name", sorted(set(ALL) - {"kinds"}))
def test_a_pml_log_is_drawn_too(make_trace, name):
    assert_can_be_drawn(figures.draw(make_trace(kind="pml", rounds=20), name, window="10ms"))


def test_a_pml_log_knows_nothing_of_reads(make_trace):
    with pytest.raises(NeedsError, match="reads"):
        figures.wss_by_kind(make_trace(kind="pml", rounds=5), "10ms")


def brute_force_cells(trace, grid):
    """Count the distinct frames of every cell by looking at each entry."""
    entries = trace.to_pandas(["round", "gfn"])
    starts = trace.rounds["t_start_ns"].to_numpy()[entries["round"]]
    column = np.searchsorted(grid.t_ns, starts, "right") - 1
    seen = set(zip(column.tolist(), entries["gfn"].tolist(), strict=True))
    counts = np.zeros_like(grid.pages)
    for c, gfn in seen:
        counts[list(grid.blocks).index(gfn // grid.block_pages), c] += 1
    return counts


frames = st.integers(0, 300) | st.integers(2**20, 2**20 + 50) | st.integers(2**64 - 40, 2**64 - 1)


@given(
    st.lists(st.lists(frames, max_size=20, unique=True), min_size=1, max_size=25),
    st.integers(2, 40),
    st.integers(1, 12),
)
def test_cells_count_what_brute_force_counts(tmp_path_factory, log, rows, columns):
    path = tmp_path_factory.mktemp("cells") / "x.trace"
    events = [[(g, Kind.WRITE) for g in row] + [(g, Kind.EXEC) for g in row[:3]] for row in log]
    trace = Trace.open(write_trace(path, events=events, pml=False, memory_bytes=8 << 30))
    grid = cells(trace, rows, columns)
    assert grid.pages.shape[0] <= rows and grid.pages.shape[1] <= columns
    assert (np.diff(grid.blocks) > 0).all()
    assert (grid.t_ns[0], grid.t_ns[-1]) == (0, trace.duration_ns)
    assert (grid.pages == brute_force_cells(trace, grid)).all()
    assert grid.to_frame()["pages"].sum() == grid.pages.sum()


def test_cells_across_row_groups(make_trace):
    trace = make_trace(rounds=30, pages=200, row_group_rows=64)
    grid = cells(trace, 50, 7)
    assert (grid.pages == brute_force_cells(trace, grid)).all()


@pytest.mark.parametrize(
    "how, inches",
    [
        ({"venue": "ieee"}, (3.5, 2.2)),
        ({"venue": "IEEE", "columns": 2}, (7.16, 2.2)),
        ({"venue": "usenix"}, (3.33, 2.2)),
        ({"venue": "lncs", "columns": 2}, (4.8, 2.2)),
        ({"width": "89mm", "height": "1.5in"}, (89 / 25.4, 1.5)),
        ({"width": 5.5, "venue": "ieee"}, (5.5, 2.2)),
        ({"height": "72.27pt"}, (3.33, 1.0)),
    ],
)
def test_a_figure_has_the_size_that_was_asked_for(trace, how, inches):
    figure = figures.wss_over_time(trace, "50ms", **how)
    assert figure.get_size_inches() == pytest.approx(inches)
    assert figure.axes[-1].yaxis.label.get_size() == 7.5  # points, at every width


def test_a_width_chooses_the_layout(trace):
    def stacked(**how):
        upper, lower = figures.wss_against_window(trace, **how).axes[:2]
        return upper.get_position().x0 == lower.get_position().x0

    assert stacked(width="3.5in") and not stacked(width="7in")
    assert not stacked(width="3.5in", columns=2)


def test_a_figure_that_calls_another_passes_its_size_on(trace):
    assert figures.miss_ratio(trace, venue="ieee").get_size_inches()[0] == 3.5
    assert figures.miss_ratio(trace).get_size_inches()[0] == 3.33


def test_phases_without_room_for_their_names_are_named_in_the_caption(make_trace):
    phases = [("start", 0), ("long", 3), ("a", 50), ("b", 51), ("c", 52), ("done", 53)]
    crowded = make_trace(rounds=56, phases=phases)
    figure = figures.heat_map(crowded)
    written = {text.get_text() for text in figure.axes[0].texts}
    (listed,) = re.findall(r"Phases too short for a name: (.*)\.$", figure.caption)
    assert set(listed.split(", ")) == {name for name, _ in phases} - written
    assert "too short" not in figures.heat_map(make_trace("y.trace", rounds=20)).caption


def test_a_program_that_marks_no_phase_has_none_drawn(make_trace):
    figure = figures.wss_by_kind(make_trace(rounds=20, phases=[("start", 0)]), "50ms")
    assert "start" not in {text.get_text() for text in figure.axes[0].texts}
    assert not figure.axes[0].patches


def test_wrong_use_is_refused(trace, make_trace):
    with pytest.raises(UsageError, match="1 or 2 columns, not 3"):
        figures.surface(trace, columns=3)
    with pytest.raises(UsageError, match="no venue 'ieeee': do you mean 'ieee'"):
        figures.surface(trace, venue="ieeee")
    with pytest.raises(UsageError, match="not a length: write one as 3.5in"):
        figures.surface(trace, width="wide")
    with pytest.raises(UsageError, match="no figure fits a side of 350in"):
        figures.surface(trace, width="350in")
    with pytest.raises(UsageError, match="no figure 'pie'"):
        figures.draw(trace, "pie")
    with pytest.raises(UsageError, match="letters from rwx"):
        figures.wss_over_time(trace, kinds=("q",))
    with pytest.raises(NeedsError, match="PML log"):
        figures.pml_against_all(make_trace(pml=False))


def test_an_unwritable_place_is_an_output_error(trace, tmp_path):
    (tmp_path / "file").write_text("")
    figure = figures.wss_over_time(trace, "50ms")
    with pytest.raises(OutputError) as caught:
        figures.save(figure, tmp_path / "file" / "wss")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_full_disk_leaves_no_file_of_a_figure(trace, tmp_path, monkeypatch):
    figure = figures.wss_over_time(trace, "50ms")
    fill_at(monkeypatch, "wss.png")
    with pytest.raises(OutputError, match=r"wss\.png .no space left"):
        figures.save(figure, tmp_path / "wss")
    assert list(tmp_path.iterdir()) == []


def test_the_callers_settings_are_neither_used_nor_changed(trace, saved, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "pdf.fonttype": 3}):
        again = figures.save(figures.draw(trace, "wss", window="50ms"), tmp_path / "wss")
        assert matplotlib.rcParams["font.size"] == 30
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in saved["wss"]]


def test_a_changed_figure_is_shown_as_it_is_now(trace, tmp_path):
    figure = figures.wss_over_time(trace, "50ms")
    files = figures.save(figure, tmp_path / "wss")
    assert figure._repr_png_()[0] == by_suffix(files, ".png")[0].read_bytes()
    figure.axes[-1].set_ylabel("something else")
    assert figure._repr_png_()[0] != by_suffix(files, ".png")[0].read_bytes()


def test_any_figure_and_data_can_be_saved(tmp_path):
    figure = matplotlib.figure.Figure()
    data = pd.DataFrame({"x": [1, 2]})
    names = {path.name for path in figures.save(figure, tmp_path / "mine", data)}
    assert names == {f"mine.{kind}" for kind in ("pdf", "svg", "png", "csv", "parquet")}


def test_pyplot_is_never_imported(trace):
    code = (
        "import sys; import pmlkit; from pmlkit import figures; t = pmlkit.open(sys.argv[1])\n"
        "for name in figures.FIGURES: figures.draw(t, name, window='50ms')\n"
        "figures.wss_over_time(t, '50ms')._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(trace.path)], check=True, timeout=HANG_S)


def test_every_figure_has_a_line_about_it():
    for name in ALL:
        assert figures.about(name).startswith("Draw ") and figures.about(name).endswith(".")


def heat_of(make_trace, frames, address="guest-physical"):
    """The heat map of a trace in which these frames are written again and again."""
    domain = {"name": "far", "memory_bytes": min((max(frames) + 1) << 12, 1 << 64)}
    domain |= {"address": address}
    events = [[(frame, Kind.WRITE) for frame in frames]] * 4
    trace = make_trace(events=events, domain=domain, memory_map=[], pml=False, overwrite=True)
    return figures.heat_map(trace)


def address_labels(figure):
    axes = figure.axes[0]
    return axes.get_ylabel(), [tick.get_text() for tick in axes.get_yticklabels()]


PHYSICAL = "guest-physical address"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "frame, name, label",
    [
        (0, f"{PHYSICAL} (MiB)", "0"),
        (5 << 8, f"{PHYSICAL} (MiB)", "5"),
        (16 << 18, f"{PHYSICAL} (MiB)", "16384"),
        ((5 << 28) + 256, f"{PHYSICAL} (MiB)", "5242881"),
        (1 << 35, PHYSICAL, "0x800000000000"),
        (1 << 51, PHYSICAL, "0x8000000000000000"),
        ((1 << 52) - 1, PHYSICAL, "0xfffffffffffff000"),
        (1 << 52, "number of the page", "0x10000000000000"),
        ((1 << 64) - 1, "number of the page", "0xffffffffffffffff"),
    ],
)
def test_a_page_is_drawn_at_its_own_address_however_high(frame, name, label, make_trace):
    figure = heat_of(make_trace, [frame])
    assert address_labels(figure) == (name, [label])
    table = figure.data["cells"]
    assert (table["gfn_start"].tolist(), table["gfn_count"].unique().tolist()) == ([frame] * 4, [1])


def test_an_axis_of_large_rows_is_in_gib(make_trace):
    frames = [gib << 18 for gib in range(0, 512)]
    assert address_labels(heat_of(make_trace, frames))[0] == f"{PHYSICAL} (GiB)"


def test_clusters_far_apart_stay_readable(make_trace):
    """What lies between them is cut out, so that both have the rows of the pages that they have."""
    frames = [*range(60), *range(1 << 35, (1 << 35) + 60)]
    figure = heat_of(make_trace, frames)
    assert sorted(set(figure.data["cells"]["gfn_start"])) == frames
    _, labels = address_labels(figure)
    assert {"0x0", "0x20000", "0x800000000000", "0x800000020000"} <= set(labels)


@pytest.mark.parametrize(
    "address, name, what",
    [
        (
            "virtual",
            "virtual address",
            "the times at which pages of the program were touched. A cell is ",
        ),
        (
            "block",
            "block address (MiB)",
            "the times at which pages of the disk were touched. A cell is ",
        ),
        (
            "guest-physical",
            f"{PHYSICAL} (MiB)",
            "the times at which guest frames were touched. A cell is ",
        ),
    ],
)
def test_an_axis_says_what_the_addresses_are_of(address, name, what, make_trace):
    figure = heat_of(make_trace, [256, 257], address)
    assert address_labels(figure)[0] == name
    assert what in figure.caption and f" of {name.split(' (')[0]}es by " in figure.caption
    shown = "guest time (s)" if address == "guest-physical" else "time (s)"
    assert figure.axes[0].get_xlabel() == shown


def test_an_address_goes_by_the_size_of_the_traces_pages(make_trace):
    """Pages of 2 MiB: page 3 lies at 6 MiB."""
    domain = {"name": "huge", "memory_bytes": 8 << 20, "page_size": 2 << 20}
    trace = make_trace(events=[[(3, Kind.WRITE)]] * 4, domain=domain, memory_map=[], pml=False)
    figure = figures.heat_map(trace)
    assert address_labels(figure) == (f"{PHYSICAL} (MiB)", ["6"])
    assert "A cell is 2,048 KiB of " in figure.caption
