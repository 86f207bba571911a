# SPDX-License-Identifier: Apache-2.0
import pytest
from lab_case import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))
