# SPDX-License-Identifier: Apache-2.0
"""The few types that many modules share; for type checkers only, so nothing imports it at run time.

A dtype is named where it is a promise (frame numbers are `Gfns`); `Array` is any.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Bools", "Floats", "Gfns", "Ids", "Ints", "Json", "PathLike", "Tell"]

PathLike = str | os.PathLike[str]
# The content of JSON and YAML files: keys are text, values anything.
Json = dict[str, Any]
# A callback that gets a line of text about the progress.
Tell = Callable[[str], object]

Gfns = NDArray[np.uint64]
Ids = NDArray[np.int32]  # numbers that `pmlkit.kernels.pages` gave pages, or rounds
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Array = NDArray[Any]
