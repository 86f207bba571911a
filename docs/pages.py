# SPDX-License-Identifier: Apache-2.0
"""What every built page must be: commands can be copied from it, and it needs no network."""

import re
from pathlib import Path

# Two hyphens that became a dash, as "–window".
_DASH = re.compile(r"[–—](?=[A-Za-z])")
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']((?:https?:)?//[^\"']*)"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload)[\"'])[^>]*\bhref=[\"']((?:https?:)?//[^\"']*)"
)
_CODE = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)


def problems(html):
    """Return what is wrong with a page, as lines."""
    found = [f"loads {match[1] or match[2]}" for match in _LOADED.finditer(html)]
    text = re.sub(r"<[^>]+>", "", _CODE.sub("", html))
    return found + [
        f"has a dash in place of hyphens: {text[max(one.start() - 30, 0) : one.end() + 20]!r}"
        for one in _DASH.finditer(text)
    ]


def check(app, failure):
    """Refuse a site with a page that has a problem; Sphinx calls it at the end of a build."""
    if failure or app.builder.format != "html":
        return
    pages = sorted(Path(app.outdir).rglob("*.html"))
    found = [
        f"{page.relative_to(app.outdir)} {one}"
        for page in pages
        for one in problems(page.read_text())
    ]
    if found:
        raise ValueError("\n".join(found))
