# SPDX-License-Identifier: Apache-2.0
"""What `make bench` measures: ratios within one run on one machine, never a test that can fail."""
