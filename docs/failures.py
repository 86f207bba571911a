# SPDX-License-Identifier: Apache-2.0
"""What a build ends with if a page cannot be made: one line that names what failed, and why."""

import contextlib

from sphinx.errors import ConfigError

from pmlkit.errors import one_line

LONGEST = 300  # characters of an error's message


@contextlib.contextmanager
def named(what):
    """Context whose errors end the build with one line that begins with `what`."""
    try:
        yield
    except ConfigError:  # a line already
        raise
    except Exception as error:
        raise failed(what, f"{type(error).__name__}: {error}") from error


def failed(what, why):
    """Return an error that Sphinx shows as one line; ``-T`` shows where it comes from."""
    return ConfigError(f"{what} failed: {one_line(why)[:LONGEST]}")
