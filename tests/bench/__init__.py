# SPDX-License-Identifier: Apache-2.0
"""What `make bench` measures: ratios within one run on one machine, never a test that can fail."""

import sys
from pathlib import Path

# Modules of tests/ have the names here that they have for pytest: what numba keeps names them.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
