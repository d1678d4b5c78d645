"""DINOv2 against tokens of the official implementation, at the sizes where the position table must be interpolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from metriloc.backbones import (
    DINOV2,
    VIT_B,
    VIT_L,
    VIT_S,
    DinoV2,
    DinoV2Config,
    dinov2_config_from_weights,
    dinov2_from_transformers,
    dinov2_weights,
)
from metriloc.backbones.dinov2 import Attention, interpolate_positions

SIZES = [(154, 238), (238, 168), (476, 350), (518, 518), (714, 532)]
TINY = DinoV2Config(embed_dim=16, depth=2, num_heads=2, image_size=56)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def explicit_attention(self: Attention, x: Tensor) -> Tensor:
    """The naive twin of the attention layer."""
    q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
    mixed = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1) @ v
    return self.proj(mixed.transpose(1, 2).flatten(2))


@pytest.fixture(scope="module")
def weights(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return {k: v.float() for k, v in load_file(shared("golden/mickey/dinov2_small_weights.safetensors")).items()}


@pytest.fixture(scope="module")
def reference(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/dinov2_small_io.safetensors"))


@pytest.fixture(scope="module")
def model(weights: dict[str, Tensor]) -> DinoV2:
    model = DinoV2(dinov2_config_from_weights(weights, num_heads=3)).eval()
    model.load_state_dict(weights, strict=True)
    return model


@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.no_grad()
def test_tokens_are_those_of_the_official_model(
    model: DinoV2, reference: dict[str, Tensor], height: int, width: int
) -> None:
    name = f"{height}x{width}"
    tokens = model.tokens(reference[f"{name}.image_u8"].float() / 255)
    patches = tokens[:, 1:] if height * width <= 90000 else tokens[:, 1::7]
    assert relative(patches, reference[f"{name}.patchtokens"]) < 5e-6
    assert relative(tokens[:, 0], reference[f"{name}.clstoken"]) < 5e-6


@pytest.mark.parametrize(("height", "width"), [(154, 238), (238, 168), (714, 532)])
@torch.no_grad()
def test_positions_are_interpolated_as_published(
    model: DinoV2, reference: dict[str, Tensor], height: int, width: int
) -> None:
    positions = interpolate_positions(model.pos_embed, (height // 14, width // 14))
    # coordinates up to 37 are rounded to 2e-6 in float32, each processor in its way; the offset of the published code
    # moves them by 1e-2 and more
    expected = reference[f"{height}x{width}.pos_embed"]
    assert relative(positions, expected) < 5e-6
    table = model.pos_embed[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    plain = F.interpolate(table, (height // 14, width // 14), mode="bicubic").flatten(2).mT
    assert relative(plain, expected[:, 1:]) > 1e-3


@torch.no_grad()
def test_the_stored_table_is_used_at_its_own_size_only(model: DinoV2) -> None:
    assert interpolate_positions(model.pos_embed, (37, 37)) is model.pos_embed
    assert interpolate_positions(model.pos_embed, (1, 1369)).shape == model.pos_embed.shape  # as many, another grid
    assert not torch.equal(interpolate_positions(model.pos_embed, (1, 1369)), model.pos_embed)


@torch.no_grad()
def test_half_precision_rounds_the_table_then_interpolates_in_float32(
    shared: Callable[[str], Path], model: DinoV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = model.pos_embed.detach() * 0.3  # no longer representable in half precision
    rounded = interpolate_positions(table.half(), (11, 17))
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, interpolate_positions(table.half().float(), (11, 17)))
    assert not torch.equal(rounded, interpolate_positions(table, (11, 17)))

    prefix = "compute_matches.extractor.dinov2_vitl14."
    stored = load_file(shared("golden/mickey/mickey_tiny_weights.safetensors"))
    io = load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))
    small = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    half = DinoV2(dinov2_config_from_weights(small, num_heads=4)).half().eval()
    half.load_state_dict(small)
    image = io["image0"].half() / 255
    expected, full = io["dino0.x_norm_patchtokens_fp16"], io["dino0.x_norm_patchtokens"]
    # every order of sums rounds differently: what must agree is how far from the truth half precision is
    allowed = (expected - full).abs()
    for path in ("fused attention", "explicit attention"):
        if path == "explicit attention":
            monkeypatch.setattr(Attention, "forward", explicit_attention)
        error = (half.tokens(image)[:, 1:].float() - full).abs()
        assert error.mean() < 1.25 * allowed.mean(), path
        assert error.max() < 2 * allowed.max(), path
    # a format with three bits less is outside of that bound, so the bound tells something
    coarse = (half.bfloat16().tokens(image.bfloat16())[:, 1:].float() - full).abs()
    assert coarse.mean() > 1.25 * allowed.mean()


@torch.no_grad()
def test_intermediate_values_of_the_tiny_model(shared: Callable[[str], Path]) -> None:
    prefix = "compute_matches.extractor.dinov2_vitl14."
    stored = load_file(shared("golden/mickey/mickey_tiny_weights.safetensors"))
    io = load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))
    small = {k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)}
    model = DinoV2(dinov2_config_from_weights(small, num_heads=4)).eval()
    model.load_state_dict(small)
    image = io["image0"].float() / 255  # 240x180: 12 and 10 pixels are cropped away
    x = model.embed(image)
    assert relative(interpolate_positions(model.pos_embed, (17, 12)), io["dino0.pos_embed_interp"]) < 5e-6
    assert relative(x, io["dino0.tokens_with_pos"]) < 5e-6
    for block in model.blocks:
        x = block(x)
    assert relative(x, io["dino0.x_prenorm"]) < 5e-6
    assert relative(model.tokens(image)[:, 1:], io["dino0.x_norm_patchtokens"]) < 5e-6


@torch.no_grad()
def test_the_feature_map_is_the_patch_tokens_row_by_row(model: DinoV2) -> None:
    image = torch.rand(2, 3, 45, 60, generator=torch.Generator().manual_seed(0))
    features = model(image)
    assert features.shape == (2, model.channels, 3, 4)
    assert torch.equal(features[1, :, 2, 1], model.tokens(image)[1, 1 + 2 * 4 + 1])
    assert torch.equal(features, model(image[..., :42, :56]))  # right and bottom cropped


def test_attention_is_the_explicit_softmax(model: DinoV2) -> None:
    attention, x = model.blocks[0].attn, torch.randn(2, 7, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(x), explicit_attention(attention, x), rtol=1e-5, atol=1e-6)


def test_presets_are_the_published_models() -> None:
    for config, millions in ((VIT_S, 22.06), (VIT_B, 86.58), (VIT_L, 304.37)):
        with torch.device("meta"):
            model = DinoV2(config)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions
        assert dinov2_config_from_weights(model.state_dict()) == config
        assert config.embed_dim // config.num_heads == 64


def test_every_released_model_has_a_name() -> None:
    assert set(DINOV2) == {f"dinov2_vit{size}14{ending}" for size in "sbl" for ending in ("", "_reg")}
    for name, config in DINOV2.items():
        assert config.registers == (4 if name.endswith("_reg") else 0)
    assert replace(DINOV2["dinov2_vitb14_reg"], registers=0) == VIT_B


@torch.no_grad()
def test_registers_take_part_in_attention_and_are_left_out_of_the_map() -> None:
    torch.manual_seed(0)
    model = DinoV2(replace(TINY, registers=3)).eval()
    for block in model.blocks:
        block.ls1.gamma.fill_(1.0)
    image = torch.rand(1, 3, 42, 56)
    tokens, features = model.tokens(image), model(image)
    assert tokens.shape == (1, 1 + 3 + 12, 16) and features.shape == (1, 16, 3, 4)
    assert torch.equal(features.flatten(2).mT, tokens[:, 4:])
    assert torch.equal(model.embed(image)[:, 1:4], model.register_tokens)
    model.register_tokens.mul_(20)
    assert not torch.allclose(model(image), features)
    assert dinov2_config_from_weights(model.state_dict(), 2) == model.config


@pytest.mark.hub
@torch.no_grad()
def test_with_registers_it_is_the_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers' own model")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, num_register_tokens=3
    )
    torch.manual_seed(0)
    theirs = transformers.Dinov2WithRegistersModel(config).eval()
    for parameter in theirs.parameters():
        parameter.copy_(0.5 * torch.randn_like(parameter))
    tensors = dinov2_weights(theirs.state_dict())
    ours = DinoV2(dinov2_config_from_weights(tensors, 2)).eval()
    ours.load_state_dict(tensors)
    for size in ((56, 56), (42, 98), (28, 42)):
        image = torch.rand(2, 3, *size)
        assert relative(ours.tokens(image), theirs(image).last_hidden_state) < 1e-5


def to_transformers(official: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """The inverse of the converter, written from transformers' side."""
    projections = ("q_proj", "k_proj", "v_proj") if version == 5 else ("query", "key", "value")
    names: dict[str, Tensor] = {}
    for key, value in official.items():
        if key.startswith("blocks."):
            _, i, rest = key.split(".", 2)
            layer = f"encoder.layer.{i}."
            inner = "attention." if version == 5 else "attention.attention."
            if rest.startswith("attn.qkv."):
                for name, part in zip(projections, value.chunk(3), strict=True):
                    names[layer + inner + name + rest.removeprefix("attn.qkv")] = part
            elif rest.startswith("attn.proj."):
                out = "attention.o_proj" if version == 5 else "attention.output.dense"
                names[layer + out + rest.removeprefix("attn.proj")] = value
            else:
                names[
                    layer
                    + rest.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
                ] = value
        elif key.startswith("norm."):
            names["layer" + key] = value
        elif key.startswith("patch_embed.proj."):
            names["embeddings.patch_embeddings.projection." + key.removeprefix("patch_embed.proj.")] = value
        else:
            names["embeddings." + key.replace("pos_embed", "position_embeddings")] = value
    return names


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("wrapper", ["", "dinov2."])
def test_names_of_transformers_are_converted(weights: dict[str, Tensor], version: int, wrapper: str) -> None:
    theirs = {wrapper + key: value for key, value in to_transformers(weights, version).items()}
    assert len(theirs) == len(weights) + 2 * 2 * 3  # q, k and v are apart
    converted = dinov2_from_transformers(theirs)
    assert set(converted) == set(weights)
    assert all(torch.equal(converted[key], weights[key]) for key in weights)
    assert set(dinov2_weights(theirs)) == set(dinov2_weights(weights)) == set(weights)


def test_wrong_weights_are_named(weights: dict[str, Tensor]) -> None:
    theirs = to_transformers(weights, 5)
    with pytest.raises(ValueError, match=r"unknown name 'classifier\.weight'"):
        dinov2_from_transformers({**theirs, "classifier.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing beside 'blocks\.0\.attn\.q\.weight'"):
        dinov2_from_transformers({k: v for k, v in theirs.items() if k != "encoder.layer.0.attention.v_proj.weight"})
    with pytest.raises(ValueError, match=r"num_heads must be given .* width 96"):
        dinov2_config_from_weights(weights)
    with pytest.raises(ValueError, match="'pos_embed' is missing"):
        dinov2_config_from_weights({k: v for k, v in weights.items() if k != "pos_embed"}, 3)
    with pytest.raises(ValueError, match="gated MLP"):
        dinov2_config_from_weights({**weights, "blocks.0.mlp.w12.weight": torch.zeros(1)}, 3)
    with pytest.raises(ValueError, match="square, got 7 positions"):
        dinov2_config_from_weights({**weights, "pos_embed": torch.zeros(1, 8, 96)}, 3)


def test_wrong_use_raises() -> None:
    with pytest.raises(ValueError, match="13x28 pixels is smaller than one patch"):
        DinoV2(TINY)(torch.zeros(1, 3, 28, 13))
    with pytest.raises(ValueError, match="embed_dim 10 is not a multiple of num_heads 3"):
        DinoV2Config(embed_dim=10, num_heads=3)
    with pytest.raises(ValueError, match="depth must be positive, got 0"):
        DinoV2Config(depth=0)


def test_gradients_flow_when_it_is_trained() -> None:
    model = DinoV2(TINY)
    model(torch.rand(1, 3, 42, 28)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name != "mask_token":
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
