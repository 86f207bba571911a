# SPDX-License-Identifier: Apache-2.0
"""A guest of the lab before a real browser: the figure of notebook 01 grows while it runs.

The guest would run for hours: it is the stop button that ends it, once enough has been seen.
"""

import pytest
from browser import PICTURES, READY, copy, page, server
from lab_case import needs_lab
from needs import needs_browser

from pmlkit.spool import folder_of

LONGEST_S = 1500  # against hangs, whatever else the machine does
FIGURE = ".jp-OutputArea-output img"
RUN = "() => { void jupyterapp.commands.execute('notebook:run-all-cells') }"
STOP = "() => { void jupyterapp.commands.execute('notebook:interrupt-kernel') }"
ANOTHER = """([figure, before]) => {
    const now = document.querySelector(figure)?.src ?? before;
    return now !== before && now;
}"""


def see(browser, count):
    """Wait for so many pictures, each other than the one before."""
    shown = [""]
    while len(shown) <= count:
        found = browser.wait_for_function(ANOTHER, arg=[FIGURE, shown[-1]])
        shown.append(found.json_value())


@needs_lab
@needs_browser
@pytest.mark.timeout(1800)
def test_the_figure_grows_while_a_guest_of_the_lab_runs_until_it_is_stopped(tmp_path):
    out = tmp_path / "out"
    given = {"source": "lab", "trace": "known", "rounds": 100_000, "period": None}
    copy("01_collect", tmp_path, **given, host=None, out=str(out))
    with server("lab", tmp_path) as url, page() as browser:
        browser.set_default_timeout(LONGEST_S * 1000)
        browser.goto(f"{url}/lab/tree/01_collect.ipynb")
        browser.evaluate(READY)
        browser.evaluate(RUN)
        see(browser, 5)
        # The emulator runs: what it said is kept as soon as it has ended, before the spool is.
        kept = {path.name for path in folder_of(out / "known.trace").iterdir()}
        assert "job.json" in kept and "console.txt" not in kept
        browser.evaluate(STOP)
        browser.locator(".jp-RenderedHTML", has_text="measured").wait_for(state="attached")
        PICTURES.mkdir(parents=True, exist_ok=True)
        browser.screenshot(path=PICTURES / "collect.png")
        assert browser.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
    assert (out / "known.trace").exists()
