# SPDX-License-Identifier: Apache-2.0
"""The gallery: each figure of the package, made by the code that is shown next to it."""

import inspect
import re
from pathlib import Path

from failures import named

import pmlkit
from pmlkit import figures
from pmlkit.figures.catalogue import FIGURES, HOMES

# The recording that shows a figure of `pmlkit plot` best; else redis.
SHOWN_ON = {"heat": "hotcold", "surface": "sqlite", "pml": "rrww"}
_DATA = 'data = pmlkit.bundled("redis").parent'
# Figures of more than a trace: what makes them. The code is run as it is shown.
CODE = {
    "compare_curves": """
        from pmlkit import missratio
        trace = pmlkit.open("redis")
        curves = {name: missratio.of_trace(trace, name) for name in missratio.METHODS}
        figure = figures.compare_curves(curves, trace)
    """,
    "period_trade_off": """
        from pmlkit import period
        trace = pmlkit.open("redis")
        figure = figures.period_trade_off(trace, period.advise(trace))
    """,
    "mechanism": """
        figure = figures.mechanism(pmlkit.open("rrww-lab"))
    """,
    "reads_over_time": """
        from pmlkit.reads import judge
        trace = pmlkit.open("rrww-lab")
        figure = figures.reads_over_time(trace, judge.compare(trace))
    """,
    "reads_errors": """
        from pmlkit.notebook import reads_tables
        figure = figures.reads_errors(reads_tables.errors())
    """,
    "harvest_costs": """
        from pmlkit.notebook import reads_tables
        figure = figures.harvest_costs(*reads_tables.costs())
    """,
    "hotness": """
        from pmlkit.reads import hotness
        trace = pmlkit.open("rrww-lab")
        ranking, touched = hotness.rank(trace.pml), hotness.touches(trace)
        figure = figures.hotness(ranking, touched, hotness.score(ranking, touched))
    """,
    "host_sees": """
        from pmlkit.notebook import reads_tables
        figure = figures.host_sees(reads_tables.host_sees())
    """,
    "error_against_cost": """
        from pmlkit import frontier
        plan = frontier.plan("1s", techniques="pml,idle-pages,flag-sample,vmware")
        points = frontier.sweep(["hotcold", "rrww"], plan)
        figure = figures.error_against_cost(points, columns=1)
    """,
    "capped_guests": f"""
        {_DATA}
        figure = figures.capped_guests(pd.read_csv(data / "caps/caps.csv"))
    """,
    "clock_sensitivity": f"""
        {_DATA}
        sizes, ranks = (data / "clock-sensitivity" / name for name in ("sizes.csv", "ranks.csv"))
        figure = figures.clock_sensitivity(pd.read_csv(sizes), pd.read_csv(ranks))
    """,
    "predicted_against_measured": f"""
        {_DATA}
        points = pd.read_csv(data / "law/points.csv")
        figure = figures.predicted_against_measured(points)
    """,
}
_ENTRY = """
## {name}

{title}.

![{title}](_figures/gallery/{name}.svg)

*{caption}*

{command}
```python
{code}
```

Function: {{py:func}}`pmlkit.figures.{function} <pmlkit.{home}.{function}>`.
"""


def entries():
    """Return {file's name: (function, command of the shell or "", code)} of each figure."""
    found = {}
    for name, place in FIGURES.items():
        function, trace = place.partition(":")[2], SHOWN_ON.get(name, "redis")
        code = f'figure = figures.{function}(pmlkit.open("{trace}"))'
        found[name] = function, f"    pmlkit plot {trace} {name} -o {name}\n", code
    for function in HOMES:
        if function not in {one for one, _, _ in found.values()}:
            found[function.replace("_", "-")] = function, "", inspect.cleandoc(CODE[function])
    return found


def draw(code):
    """Run the code of an entry and return its figure."""
    import pandas as pd

    names = {"pmlkit": pmlkit, "figures": figures, "pd": pd}
    exec(code, names)
    return names["figure"]


def _begun(text):
    """Return a text with a capital, unless it begins with the name of a recording."""
    return text if re.match(r"[\w-]+: ", text) else text[0].upper() + text[1:]


def make(folder):
    """Draw all figures into a folder, and write the page's text into it; keep what is there."""
    folder = Path(folder)
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    if (folder / "gallery.md").exists():
        return
    text = []
    for name, (function, command, code) in entries().items():
        with named(f"the figure {name} of the gallery"):
            figure = draw(code)
            figures.save(figure, folder / "gallery" / name)
        line = inspect.getdoc(getattr(figures, function)).partition("\n")[0]
        title = line.removeprefix("Draw ").rstrip(".")
        told = {"name": name, "function": function, "command": command, "code": code}
        told["home"] = HOMES[function]
        told |= {"title": _begun(title), "caption": _begun(" ".join(figure.caption.split()))}
        text.append(_ENTRY.format(**told))
    (folder / "gallery.md").write_text("".join(text))
