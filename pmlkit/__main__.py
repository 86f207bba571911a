# SPDX-License-Identifier: Apache-2.0
"""``python -m pmlkit`` is the command `pmlkit`."""

import sys

from pmlkit.cli import main

sys.exit(main())
