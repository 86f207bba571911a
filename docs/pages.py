# SPDX-License-Identifier: Apache-2.0
"""What every built page must be: commands can be copied, links work, and it needs no network."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Two hyphens that became a dash, as "–window".
_DASH = re.compile(r"[–—](?=[A-Za-z])")
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']((?:https?:)?//[^\"']*)"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload)[\"'])[^>]*\bhref=[\"']((?:https?:)?//[^\"']*)"
)
_CODE = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)
_LINK = re.compile(r"<a\b[^>]*?\bhref=[\"']([^\"']+)[\"']")
_ID = re.compile(r"\bid=[\"']([^\"']+)[\"']")


def problems(html):
    """Return what is wrong with a page by itself, as lines."""
    found = [f"loads {match[1] or match[2]}" for match in _LOADED.finditer(html)]
    text = re.sub(r"<[^>]+>", " ", _CODE.sub("", html))
    return found + [
        f"has a dash in place of hyphens: {text[max(one.start() - 30, 0) : one.end() + 20]!r}"
        for one in _DASH.finditer(text)
    ]


def broken(pages):
    """Yield (page, link) of links within a site that lead nowhere.

    Parameters
    ----------
    pages : dict of pathlib.Path to str
        The text of each page.
    """
    targets = {page.resolve(): set(_ID.findall(html)) for page, html in pages.items()}
    for page, html in pages.items():
        for link in sorted(set(_LINK.findall(_CODE.sub("", html)))):
            parts = urlsplit(unescape(link))
            if parts.scheme or parts.netloc:
                continue
            there = (page.parent / unquote(parts.path) if parts.path else page).resolve()
            anchor = unquote(parts.fragment)
            if not there.exists() or (anchor and there in targets and anchor not in targets[there]):
                yield page, link


def check(app, failure):
    """Refuse a site with a page that has a problem; Sphinx calls it at the end of a build."""
    if failure or app.builder.format != "html":
        return
    root = Path(app.outdir)
    pages = {page: page.read_text() for page in sorted(root.rglob("*.html"))}
    found = [(page, one) for page, html in pages.items() for one in problems(html)]
    # The listings of the sources name a module's objects by where they are defined, not documented.
    own = {page: html for page, html in pages.items() if "_modules" not in page.parts}
    found += [(page, f"has a link to {link}, which is not there") for page, link in broken(own)]
    if found:
        raise ValueError("\n".join(f"{page.relative_to(root)} {one}" for page, one in found))
