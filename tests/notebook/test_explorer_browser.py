# SPDX-License-Identifier: Apache-2.0
"""The explorer before a real browser: in JupyterLab and Notebook 7, sliders move, figures follow.

What the browser shows at the end is kept in ``results/browser/``.
"""

import json

import pytest
from browser import PICTURES, READY, copy, page, server
from needs import needs_browser

ADDRESS = {"lab": "lab/tree", "notebook": "notebooks"}
FIGURES = ".jupyter-widgets .jupyter-matplotlib-canvas-div canvas:first-child"
# Milliseconds from now on until the figure is another one, as it is seen in the browser.
WATCH = """async ([selector, index, before]) => {
    const canvas = () => document.querySelectorAll(selector)[index];
    const start = performance.now();
    while (performance.now() - start < 1500000) {
        const ink = canvas()?.getContext('2d').getImageData(5, 5, 1, 1).data[3];
        if (ink && canvas().toDataURL() !== before) return performance.now() - start;
        await new Promise(requestAnimationFrame);
    }
    return null;
}"""


@needs_browser
@pytest.mark.parametrize("program", ["lab", "notebook"])
def test_a_slider_moves_and_the_figure_follows(program, tmp_path):
    given = {"trace": "hotcold", "window": "100ms", "out": str(tmp_path / "out")}
    copy("02_working_set", tmp_path, without="figures.save", **given)
    with server(program, tmp_path) as url, page() as browser:
        browser.goto(f"{url}/{ADDRESS[program]}/02_working_set.ipynb")
        run_all(browser)
        figure, heat = picture(browser, 0), picture(browser, 1)
        window = browser.locator(".widget-hslider").first
        before = window.inner_text()
        drag(browser, window.locator(".noUi-base"), 0.9, 0.95)
        seconds = {"slider": changed(browser, 0, figure) / 1000}
        assert window.inner_text() != before
        figure = picture(browser, 0)
        drag(browser, browser.locator(FIGURES).nth(1), 0.3, 0.6)
        seconds["brush"] = changed(browser, 0, figure) / 1000
        changed(browser, 1, heat)
        time = browser.locator(".widget-hslider", has_text="time (s)")
        time.filter(has_not_text="0.00").wait_for()  # the brush has set it
        PICTURES.mkdir(parents=True, exist_ok=True)
        browser.screenshot(path=PICTURES / f"{program}.png")
        (PICTURES / f"{program}.json").write_text(json.dumps(seconds) + "\n")
        assert browser.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0


def run_all(browser):
    """Run all cells as the menu does, and wait for them."""
    browser.evaluate(READY)
    browser.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    browser.locator(FIGURES).nth(1).scroll_into_view_if_needed()
    for index in (0, 1):
        changed(browser, index, None)


def picture(browser, index):
    return browser.locator(FIGURES).nth(index).evaluate("canvas => canvas.toDataURL()")


def changed(browser, index, before):
    """Wait until a figure is another one than before; return the milliseconds."""
    took = browser.evaluate(WATCH, [FIGURES, index, before])
    assert took is not None, "the figure has not changed"
    return took


def drag(browser, what, start, end):
    """Press the mouse over something at a share of its width, and let it go at another."""
    what.scroll_into_view_if_needed()
    box = what.bounding_box()
    y = box["y"] + box["height"] / 2
    browser.mouse.move(box["x"] + box["width"] * start, y)
    browser.mouse.down()
    for share in ((start + end) / 2, end):
        browser.mouse.move(box["x"] + box["width"] * share, y)
    browser.mouse.up()
