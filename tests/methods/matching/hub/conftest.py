"""Tiny random checkpoints of the hub's architectures, as ``transformers`` writes them: no network, no torchvision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.geometry import Camera
from metriloc.types import View

_DINO = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "image_size": 56,
    "patch_size": 14,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
    "apply_layernorm": True,
    "reshape_hidden_states": False,
}
_SUPERPOINT = {
    "encoder_hidden_sizes": [8, 8, 16, 16],
    "decoder_hidden_size": 16,
    "descriptor_decoder_dim": 16,
}


def _write(folder: Path, network: Any, preprocessor: dict[str, Any] | None, card: str | None) -> Path:
    network.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def depth_anything(folder: Path, kind: str = "metric", max_depth: int = 20) -> Path:
    """Depth Anything; kind: ``metric`` or ``relative``."""
    import transformers as t

    torch.manual_seed(0)
    config = t.DepthAnythingConfig(
        backbone_config=t.Dinov2Config(**_DINO),
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=max_depth,
    )
    network = t.DepthAnythingForDepthEstimation(config)
    _spread_out(network.head)
    _spread_out(network.neck)
    settings = {**_dpt_settings(), "image_processor_type": "DPTImageProcessor"}
    return _write(folder, network, settings, "---\nlicense: apache-2.0\ntags:\n- depth\n---\n# A card\n")


def prompt_depth_anything(folder: Path) -> Path:
    """PromptDepthAnything."""
    import transformers as t

    torch.manual_seed(0)
    config = t.PromptDepthAnythingConfig(
        backbone_config=t.Dinov2Config(**_DINO),
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    network = t.PromptDepthAnythingForDepthEstimation(config)
    _spread_out(network.head)
    _spread_out(network.neck)
    settings = {**_dpt_settings(), "image_processor_type": "PromptDepthAnythingImageProcessor"}
    return _write(folder, network, settings, None)


def _dpt_settings() -> dict[str, Any]:
    return {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}


def depth_pro(folder: Path, field_of_view: float | None = 60.0) -> Path:
    """DepthPro, whose head of the field of view says always the same; None: without that head."""
    import transformers as t

    torch.manual_seed(0)
    dino = {**_DINO, "image_size": 16, "patch_size": 8, "num_hidden_layers": 2}
    dino = {key: value for key, value in dino.items() if key not in ("out_features", "reshape_hidden_states")}
    del dino["apply_layernorm"]
    config = t.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[16, 16],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[16, 16, 16],
        use_fov_model=field_of_view is not None,
        image_model_config=t.Dinov2Config(**dino),
        patch_model_config=t.Dinov2Config(**dino),
        fov_model_config=t.Dinov2Config(**dino),
    )
    network = t.DepthProForDepthEstimation(config)
    if field_of_view is not None:
        last = [module for module in network.fov_model.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, field_of_view)
    return _write(folder, network, {"size": {"height": 64, "width": 64}}, "no front matter")


def zoedepth(folder: Path) -> Path:
    """ZoeDepth."""
    import transformers as t

    torch.manual_seed(0)
    backbone = t.BeitConfig(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=37,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    config = t.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        bin_embedding_dim=8,
        num_relative_features=16,
        num_attractors=[4, 2, 2, 1],
        bin_configurations=[{"n_bins": 16, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
    )
    settings = {
        "image_processor_type": "ZoeDepthImageProcessor",
        "size": {"height": 64, "width": 64},
        "ensure_multiple_of": 32,
    }
    return _write(folder, t.ZoeDepthForDepthEstimation(config), settings, None)


def superpoint(folder: Path) -> Path:
    """SuperPoint with random filters: it finds corners of whatever kind."""
    import transformers as t

    torch.manual_seed(0)
    network = t.SuperPointForKeypointDetection(t.SuperPointConfig(**_SUPERPOINT))
    _spread_out(network)
    return _write(folder, network, _pair_settings("SuperPointImageProcessor"), None)


def lightglue(folder: Path, stops_early: bool = True) -> Path:
    """LightGlue on such a SuperPoint; stops_early: as published, where it prunes keypoints and layers."""
    import transformers as t

    torch.manual_seed(0)
    config = t.LightGlueConfig(
        keypoint_detector_config=t.SuperPointConfig(**_SUPERPOINT),
        descriptor_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        depth_confidence=0.95 if stops_early else -1.0,
        width_confidence=0.99 if stops_early else -1.0,
        filter_threshold=0.0,
    )
    network = t.LightGlueForKeypointMatching(config)
    _spread_out(network.keypoint_detector)
    for layer in network.transformer_layers:  # nothing is added to the descriptors: what looks alike is matched
        for part in (layer.self_mlp, layer.cross_mlp):
            torch.nn.init.zeros_(part.fc2.weight)
    for layer in network.match_assignment_layers:
        layer.final_projection.weight.data = 20 * torch.eye(16)
        torch.nn.init.constant_(layer.matchability.bias, 10.0)
    card = "---\nlicense: other\nlicense_name: magic-leap\n---\n"
    return _write(folder, network, _pair_settings("LightGlueImageProcessor"), card)


def superglue(folder: Path) -> Path:
    """SuperGlue on such a SuperPoint."""
    import transformers as t

    torch.manual_seed(0)
    config = t.SuperGlueConfig(
        keypoint_detector_config=t.SuperPointConfig(**_SUPERPOINT),
        hidden_size=16,
        keypoint_encoder_sizes=[8, 16],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=2,
        sinkhorn_iterations=20,
    )
    network = t.SuperGlueForKeypointMatching(config)
    _spread_out(network.keypoint_detector)
    return _write(folder, network, _pair_settings("SuperGlueImageProcessor"), None)


def efficientloftr(folder: Path) -> Path:
    """EfficientLoFTR in its own size, because smaller ones fail; 60 MB of random numbers, that match only themselves."""
    import transformers as t

    torch.manual_seed(0)
    network = t.EfficientLoFTRForKeypointMatching(t.EfficientLoFTRConfig(coarse_matching_threshold=0.0))
    return _write(folder, network, _pair_settings("EfficientLoFTRImageProcessor"), None)


def _pair_settings(name: str) -> dict[str, Any]:
    return {"image_processor_type": name, "size": {"height": 96, "width": 128}}


def _spread_out(network: Any) -> None:
    """Filters large enough that pixels differ; those of the initialization make all the same."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)


WRITERS: dict[str, Callable[..., Path]] = {
    writer.__name__: writer
    for writer in (
        *(depth_anything, depth_pro, zoedepth, prompt_depth_anything),
        *(superpoint, lightglue, superglue, efficientloftr),
    )
}


@pytest.fixture()
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """``checkpoint("zoedepth", **options)`` -> its folder; skips the test where transformers is not installed."""
    pytest.importorskip("transformers", reason='needs transformers: pip install "metriloc[hub]"')

    def write(name: str, /, **options: Any) -> Path:
        return WRITERS[name](tmp_path / name, **options)

    return write


@pytest.fixture()
def photo() -> View:
    """128 x 96 pixels of blobs, whose focal length is a guess."""
    generator = torch.Generator().manual_seed(0)
    blobs = torch.rand(1, 3, 24, 32, generator=generator)
    image = torch.nn.functional.interpolate(blobs, size=(96, 128), mode="bilinear")[0]
    camera = Camera.from_K(torch.tensor([[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1]]), (128, 96))
    return View(image, camera, intrinsics_source="a guess", focal_sigma=0.25)
