# SPDX-License-Identifier: Apache-2.0
"""A VM on a real Xen host: the agent in dom0, its stream, its spool.

Modules
-------
collection  `Collection`: logging of one domain, from the command line or a notebook; its options
launch      the agent, started here or over SSH
stream      the collector's frames, decoded and checked
spool       a stream appended to a spool
ingest      a spool converted to a trace
"""
