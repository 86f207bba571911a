# SPDX-License-Identifier: Apache-2.0
"""The memory model and Geiger's inference, against a guest that really had too little memory."""

import pytest

import pmlkit
from pmlkit import techniques
from pmlkit.techniques import Recorded
from pmlkit.techniques.geiger import Inference
from pmlkit.techniques.memory import Guest, MemoryModel

pytestmark = pytest.mark.skipif(
    not {"pressure", "pressure-roomy"} <= set(pmlkit.bundled()),
    reason="data/ has no recording of a guest that swaps (pmlkit record pressure --swap 128)",
)


@pytest.fixture(scope="module")
def limited():
    return pmlkit.open(pmlkit.bundled("pressure"))


@pytest.mark.parametrize("policy", ["lru", "clock"])
def test_the_model_swaps_about_as_much_as_the_guest_did(limited, policy):
    roomy = Recorded.of(pmlkit.open(pmlkit.bundled("pressure-roomy")))
    real = limited.guest.iloc[-1]
    # Both guests have the same room for pages: the kernel's image is larger in the larger one.
    image = roomy.memory_pages - int(roomy.guest["total_bytes"].iloc[-1]) // 4096
    model = Guest(roomy, MemoryModel(policy=policy))
    model.resize(int(real["total_bytes"]) // 4096 + image)
    model.advance(roomy.n_rounds)
    assert model.swap_ins + model.refaults == pytest.approx(real["pswpin"], rel=0.1)
    assert model.swap_outs == pytest.approx(real["pswpout"], rel=0.1)


def test_the_disk_was_asked_for_what_the_guest_says_that_it_swapped(limited):
    disk, real = limited.disk, limited.guest.iloc[-1]
    assert set(disk["sectors"]) == {8}
    # The guest's last sample is taken up to 100 ms before the end.
    assert disk["write"].sum() == pytest.approx(real["pswpout"], rel=0.01)
    assert (~disk["write"]).sum() == pytest.approx(real["pswpin"], rel=0.01)
    assert disk["gfn"].max() < limited.memory_pages


def test_every_page_that_came_back_had_been_seen_to_go(limited):
    disk, inference = limited.disk, Inference()
    inference.follow(disk["sector"].to_numpy(), disk["gfn"].to_numpy(), disk["write"].to_numpy())
    reads = (~disk["write"]).sum()
    assert inference.reloads == pytest.approx(reads, rel=0.02)


def test_geiger_speaks_in_the_phase_that_lacks_memory(limited):
    recorded = Recorded.of(limited)
    estimates = techniques.run("geiger", recorded, window="1s").estimates
    starts = dict(recorded.phases)
    large, after = (recorded.t_ns[starts[name]] for name in ("large", "small2"))
    early = estimates[estimates["t_ns"] <= large]["pages"]
    during = estimates[estimates["t_ns"].between(large + 2e9, after)]["pages"].dropna()
    assert early.isna().all()
    # 64 MiB are used evenly; the guest has room for some 44 of them.
    more = (during - recorded.memory_pages) / 256
    assert 10 < more.median() < 50
