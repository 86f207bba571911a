# SPDX-License-Identifier: Apache-2.0
"""JupyterLab or Notebook 7 on a copy of a notebook, and a browser without a screen before it."""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
from ports import free_port
from waiting import HANG_S, until

from pmlkit.batch.notebook import notebooks_folder

PICTURES = Path(__file__).resolve().parent.parent / "results" / "browser"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-dev-shm-usage"]
QUIET = ["--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.port_retries=0"]
QUIET += ["--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"]
QUIET += ["--JupyterNotebookApp.expose_app_in_browser=True"]
NO_NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
# Before its kernel is connected, Jupyter forgets what it is asked to run.
READY = """async () => {
    const ready = async () => {
        if (!window.jupyterapp?.commands.hasCommand("notebook:run-all-cells")) return false;
        const [session] = await (await fetch("/api/sessions")).json();
        if (!session || session.kernel.execution_state !== "idle") return false;
        const mark = ".jp-Notebook-ExecutionIndicator[data-status='idle']";
        return session.kernel.connections > 0 && document.querySelector(mark) !== null;
    };
    while (!(await ready()))
        await new Promise(requestAnimationFrame);
}"""


def copy(notebook, folder, without=None, **parameters):
    """Copy a notebook of the project with other parameters, without cells that have some text."""
    document = nbformat.read(notebooks_folder() / f"{notebook}.ipynb", as_version=4)
    document.cells = [c for c in document.cells if without is None or without not in c.source]
    (cell,) = (c for c in document.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    nbformat.write(document, folder / f"{notebook}.ipynb")


@contextlib.contextmanager
def server(program, folder):
    """Start ``jupyter lab`` or ``jupyter notebook`` in a folder; give its address."""
    port = free_port()
    module = {"lab": "jupyterlab", "notebook": "notebook"}[program]
    settings = {f"JUPYTER_{n}_DIR": str(folder / ".jupyter" / n) for n in ("CONFIG", "RUNTIME")}
    settings |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / ".jupyter" / "workspaces")}
    own = folder / ".jupyter" / "settings"
    settings |= {"JUPYTERLAB_SETTINGS_DIR": str(own)}
    (own / NO_NEWS).parent.mkdir(parents=True)
    (own / NO_NEWS).write_text('{"checkForUpdates": false, "fetchNews": "false"}')
    command = [sys.executable, "-m", module, *QUIET, f"--ServerApp.port={port}"]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | settings
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, f"{url}/api/status", folder / "server.log")
        yield url
    finally:
        process.terminate()
        process.wait(HANG_S)


def _wait(process, url, log):
    def answers():
        assert process.poll() is None, f"Jupyter has ended: {log.read_text()[-2000:]}"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=HANG_S).close()
            return True

    until(answers, "Jupyter does not answer")


@contextlib.contextmanager
def page():
    """Open an empty page in Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 1300})
        opened.set_default_timeout(HANG_S * 1000)
        try:
            yield opened
        except BaseException:
            PICTURES.mkdir(parents=True, exist_ok=True)
            opened.screenshot(path=PICTURES / "failed.png")
            raise
        finally:
            browser.close()
