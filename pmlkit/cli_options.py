# SPDX-License-Identifier: Apache-2.0
"""The options and arguments that commands share, and how their texts are read."""

import click

from pmlkit.errors import UsageError


class _Parsed(click.ParamType):
    """An option's type that reads its text with a function of `pmlkit.units`."""

    def __init__(self, name, function):
        self.name, self.function = name, function

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        from pmlkit import units

        try:
            return getattr(units, self.function)(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _Memory(click.ParamType):
    """Guest memory: MiB, or a size with its unit; becomes MiB."""

    name = "MiB"

    def convert(self, value, param, ctx):
        from pmlkit.units import parse_size_bytes

        try:
            size = parse_size_bytes(value, bare="M")
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if size % (1 << 20):
            self.fail(f"{value} is not a whole number of MiB", param, ctx)
        return size >> 20


class _Setting(click.ParamType):
    """``name=value``; becomes the pair."""

    name = "name=value"

    def convert(self, value, param, ctx):
        name, equals, text = value.partition("=")
        if not name.strip() or not equals:
            self.fail(f"{value!r}: write it as name=value", param, ctx)
        return name.strip(), text


DURATION = _Parsed("time", "parse_duration_ns")
WINDOW = _Parsed("window", "parse_window")
MEMORY = _Memory()
SETTING = _Setting()


def example(*lines):
    """Write a command's examples as the end of its help, as they are typed."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def option(*names, **facts):
    """Declare an option whose default, if it has one, is part of its help."""
    shown = facts.get("default") is not None and not facts.get("is_flag")
    return click.option(*names, **{"show_default": shown, **facts})


def output(metavar, what, **more):
    """Declare ``-o``."""
    return option("-o", "--output", type=click.Path(), metavar=metavar, help=what, **more)


def span(command):
    """Declare ``--start`` and ``--end``."""
    command = option("--end", type=DURATION, help="Leave out what is later.")(command)
    return option("--start", type=DURATION, help="Leave out what is earlier.")(command)


as_json = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
overwrite = option("--overwrite", is_flag=True, help="Replace what has the output's name.")
trace_argument = click.argument("trace", type=click.Path())
