# SPDX-License-Identifier: Apache-2.0
"""Functions for the notebooks: tables about a trace, live collection, the explorer.

The tables of one notebook alone have a module of their own, so that others do not import it.

Modules
-------
views     tables about one trace, and where its results go
shown     how a table is shown: units, three digits, reasons, links
period_tables
          tables of the advice on periods
reads_tables
          tables about reads
forecast_tables
          tables about forecasts
live      collect from any source, shown while it runs
explorer  `explore`: widgets over a trace
explored  the numbers that the explorer shows, and code that makes them
interrupted
          what Ctrl-C in a cell shows
uses      a trace's uses in memory, for quick answers
"""
