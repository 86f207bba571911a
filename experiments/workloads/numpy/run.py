# SPDX-License-Identifier: Apache-2.0
"""numpy: matrix products, a sort, and a singular value decomposition; checked as it goes."""

import os
import subprocess
import sys

import numpy as np

sizes = {name: int(os.environ[name]) for name in ("matrix", "products", "numbers", "decomposed")}
random = np.random.default_rng(1)


def phase(name):
    subprocess.run(["pmlguest", "phase", name], check=True)


phase("matmul")
a, b = random.random((2, sizes["matrix"], sizes["matrix"]))
product = b
for _ in range(sizes["products"]):
    product = a @ product
    product /= product.max()

phase("sort")
numbers = random.random(sizes["numbers"])
order = np.argsort(numbers)
numbers.sort()
if not (numbers[1:] >= numbers[:-1]).all():
    sys.exit("numpy: the sort went wrong")

phase("svd")
matrix = random.random((sizes["decomposed"], sizes["decomposed"]))
u, s, v = np.linalg.svd(matrix)
if not np.allclose(u * s @ v, matrix):
    sys.exit("numpy: the decomposition went wrong")

phase("done")
print("numpy", np.__version__, product.shape, order[:3], s[:3])
