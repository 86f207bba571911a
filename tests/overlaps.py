# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the texts of a figure as it is drawn: clipped, overlapping, struck through."""

import itertools

import numpy as np
from matplotlib.text import Text

SHRINK = 0.8  # of a text's box, which has room for letters that it does not have
EDGE_PX = 1.5


def faults(figure):
    """Draw a figure; return a line for each text that cannot be read in whole."""
    figure.draw_without_rendering()
    drawn = [(text, _corners(text)) for text in _drawn_texts(figure)]
    found = [f"clipped: {t.get_text()!r}" for t, box in drawn if _sticks_out(box, figure.bbox)]
    for (a, of_a), (b, of_b) in itertools.combinations(drawn, 2):
        if _overlap(of_a, of_b):
            found.append(f"overlap: {a.get_text()!r}, {b.get_text()!r}")
    for axes in figure.axes:
        names = [(t, box) for t, box in drawn if t in axes.texts and not t.get_path_effects()]
        for (text, box), line in itertools.product(names, axes.lines):
            if line.get_visible() and _strikes(line, box):
                found.append(f"struck through: {text.get_text()!r}")
    return found


def _drawn_texts(figure):
    axis = [one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)]
    ticks = {id(tick) for one in axis if one.axes.axison for tick in one._update_ticks()}
    undrawn = {
        id(label)
        for one in axis
        for tick in one.get_major_ticks() + one.get_minor_ticks()
        for label in (tick.label1, tick.label2)
        if id(tick) not in ticks or not one.get_visible()
    }
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [text for text in texts if id(text) not in undrawn]


def _corners(text):
    """Return the corners of a text's box, which may be rotated: shape (4, 2), pixels."""
    box, angle = Text.get_window_extent(text), np.deg2rad(text.get_rotation())
    text.set_rotation(0)
    upright = Text.get_window_extent(text)  # without the arrow of an annotation
    text.set_rotation(np.rad2deg(angle))
    half = np.array([upright.width, upright.height * SHRINK]) / 2
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return square @ turn + ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)


def _sticks_out(box, frame):
    low, high = box.min(axis=0), box.max(axis=0)
    return (low < -EDGE_PX).any() or (high > (frame.x1 + EDGE_PX, frame.y1 + EDGE_PX)).any()


def _overlap(a, b):
    """Whether two rectangles overlap: no axis of either parts them."""
    for box in (a, b):
        for side in (box[1] - box[0], box[2] - box[1]):
            one, other = a @ side, b @ side
            if one.max() <= other.min() or other.max() <= one.min():
                return False
    return True


def _strikes(line, box):
    """Whether a line, or one of its marks, crosses a box."""
    points = line.get_transform().transform(np.asarray(line.get_xydata(), float))
    points = points[np.isfinite(points).all(axis=1)]
    if line.get_linestyle() not in ("None", ""):
        points = _dense(points)
    if not len(points):
        return False
    across, up = box[1] - box[0], box[3] - box[0]
    inside = points - box[0]
    share = np.c_[inside @ across / (across @ across), inside @ up / (up @ up)]
    return bool(((share > 0.05) & (share < 0.95)).all(axis=1).any())


def _dense(points, step=1.0):
    """Return points on a line that are not more than a pixel apart."""
    if len(points) < 2:
        return points
    pieces = []
    for a, b in itertools.pairwise(points):
        far = min(int(np.hypot(*(b - a)) / step) + 1, 4000)
        pieces.append(a + (b - a) * np.linspace(0, 1, far, endpoint=False)[:, None])
    return np.concatenate([*pieces, points[-1:]])
