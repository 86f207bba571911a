# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from pmlkit.errors import MissingTool
from pmlkit.xen import binding


def test_ready_made_declarations_are_those_parsed(tmp_path):
    binding.emit(tmp_path / "made.py")
    sys.path.insert(0, str(tmp_path))
    try:
        from made import ffi
    finally:
        sys.path.remove(str(tmp_path))
    parsed = binding._parsed()
    for name in ("struct xenpml_record", "struct xenpml_round", "xc_hypercall_buffer_t"):
        assert ffi.sizeof(name) == parsed.sizeof(name)


@pytest.mark.parametrize(
    ("name", "size"), [("struct xenpml_options", 24), ("xc_hypercall_buffer_t", 40)]
)
def test_structs_have_the_sizes_of_the_c_library(name, size):
    assert binding._parsed().sizeof(name) == size


def test_a_missing_library_is_named():
    with pytest.raises(MissingTool, match="libxenpml.so.1 is not installed"):
        binding.library("xenpml")
