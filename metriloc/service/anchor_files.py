"""What is kept of the photo of an anchor: pixels, camera, depth and local features, as one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera
from metriloc.methods.matching.model import ImageFeatures
from metriloc.types import PhotoFeatures, View

FORMAT = "metriloc-anchor-1"
_CAMERA = ("size", "f", "c", "distortion")


@dataclass(frozen=True, eq=False)
class Anchor:
    """view: the photo as it came. features: what ``made_by`` (method, weights, and whether its metres are given) made of
    it; None for a method that looks at the photo again."""

    view: View
    features: PhotoFeatures | None
    made_by: str


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Write it whole; the caller moves it to where it stays."""
    view, features = anchor.view, anchor.features
    rgb = (view.image * 255).round().to(torch.uint8).permute(1, 2, 0)
    tensors: dict[str, Tensor] = {"rgb": rgb, **_camera_tensors("view", view.camera)}
    facts: dict[str, Any] = {"format": FORMAT, "made_by": anchor.made_by, "view": _facts_of(view)}
    if view.depth is not None:
        tensors["view.depth"] = view.depth
    # what other methods see is made again of the photo
    if isinstance(features, ImageFeatures) and type(features.local) is LocalFeatures:
        local, seen = features.local, features.view
        tensors |= {"uv": local.uv, "descriptors": local.descriptors, "scores": local.scores}
        tensors |= _camera_tensors("seen", seen.camera)
        if seen.depth is not None:
            tensors["seen.depth"] = seen.depth
        facts |= {"seen": _facts_of(seen), "seconds": features.seconds, "depth_origin": features.depth_origin}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, path, {"anchor": json.dumps(facts)})


def read_anchor(path: Path, device: str = "cpu") -> Anchor:
    """What ``write_anchor`` wrote, equal bit for bit. device: of the keypoints."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        facts = json.loads(file.metadata()["anchor"])
    image = tensors["rgb"].permute(2, 0, 1).float().div_(255).contiguous()
    view = _view_of(image, tensors, facts, "view")
    if "seen" not in facts:
        return Anchor(view, None, facts["made_by"])
    local = LocalFeatures(*(tensors[name].to(device) for name in ("uv", "descriptors", "scores")))
    seen = _view_of(image, tensors, facts, "seen")
    features = ImageFeatures(seen, local, facts["seconds"], facts["depth_origin"])
    return Anchor(view, features, facts["made_by"])


def _facts_of(view: View) -> dict[str, Any]:
    model, source = view.camera.model, view.intrinsics_source
    return {"name": view.name, "model": model, "source": source, "focal_sigma": view.focal_sigma}


def _camera_tensors(of: str, camera: Camera) -> dict[str, Tensor]:
    return {f"{of}.{name}": getattr(camera, name) for name in _CAMERA}


def _view_of(image: Tensor, tensors: dict[str, Tensor], facts: dict[str, Any], of: str) -> View:
    told = facts[of]
    camera = Camera(**{name: tensors[f"{of}.{name}"] for name in _CAMERA}, model=told["model"])
    depth = tensors.get(f"{of}.depth")
    source, sigma = told["source"], told["focal_sigma"]
    return View(image, camera, name=told["name"], intrinsics_source=source, depth=depth, focal_sigma=sigma)
