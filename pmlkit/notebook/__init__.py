# SPDX-License-Identifier: Apache-2.0
"""What the notebooks call: a trace shown as tables and figures, live collection, the explorer.

Modules
-------
views     tables about one trace, and where its results go
period_tables
          tables of the advice on periods
reads_tables
          tables about reads
live      one way to collect from each source, shown while it runs
explorer  `explore`: widgets over a trace
"""
