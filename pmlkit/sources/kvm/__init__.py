# SPDX-License-Identifier: Apache-2.0
"""A VM on a stock Linux/KVM host: the agent's stream and spool.

Modules
-------
stream  the agent's frames, decoded and checked
events  events of all CPUs in order: vCPUs, drains, rounds, losses
tables  the logged frames that are page tables, identified by their content
sample  the sample of touched frames, nested in the trace
ingest  a spool converted to a trace
watch   the rounds of a growing spool
collection  options of a collection
sizes   a collection of sizes without frames
"""
