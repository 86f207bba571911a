# SPDX-License-Identifier: Apache-2.0
"""A KVM host made of files, for each test that asks for one."""

import fake_kvm
import pytest


@pytest.fixture
def kvm(tmp_path, monkeypatch):
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    kvm.install(monkeypatch.setattr)
    return kvm
