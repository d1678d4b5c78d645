"""On a GPU, the network runs without the processor waiting for it."""

from __future__ import annotations

import pytest
import torch

from metriloc.backbones import DinoV2Config
from metriloc.methods.mickey import MicKeyConfig, MicKeyNetwork


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@torch.no_grad()
def test_nothing_waits_for_the_network() -> None:
    config = MicKeyConfig(DinoV2Config(64, 2, 2), (32, 32, 32, 16))
    network = MicKeyNetwork(config).cuda().eval()
    image = torch.rand(1, 3, 126, 98, device="cuda")
    network(image)  # the first run loads kernels, and casts weights
    torch.cuda.set_sync_debug_mode("error")
    try:
        maps = network(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert maps.descriptor.device.type == "cuda"
