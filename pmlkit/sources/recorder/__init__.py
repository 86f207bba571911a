# SPDX-License-Identifier: Apache-2.0
"""A VM under QEMU with a plugin that records every access: ground truth.

Modules
-------
record     `record`: boot a workload and record it
recording  one run of the emulator
qemu       the emulator and its plugin
messages   the plugin's messages, decoded and checked
kit        the lab's bare-metal guests, recorded: only for the command, as rounds are the guest's
ingest     a spool of the recorder converted to a trace (one module for each format of spools)
"""
