# SPDX-License-Identifier: Apache-2.0
"""Comparison of techniques on the same recorded VMs.

Modules
-------
run  the plan of a comparison, and its execution
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.compare.run import PARTS, Comparison, Plan, as_dict, compare, pareto, plan

__all__ = ["Comparison", "PARTS", "Plan", "as_dict", "compare", "pareto", "plan"]

__getattr__ = lazy("pmlkit.compare", dict.fromkeys(__all__, "compare.run"))
