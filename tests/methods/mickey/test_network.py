"""MicKey's network against every intermediate value of the published one (tiny weights), and its own promises."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from metriloc.backbones import DinoV2Config
from metriloc.geometry import Camera
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.checkpoint import config_from_weights, from_official
from metriloc.methods.mickey.keypoint_maps import KeypointMaps, keypoints, spatial_softmax
from metriloc.methods.mickey.network import MicKeyNetwork, backbone_dtype
from metriloc.methods.mickey.network_config import MicKeyConfig
from metriloc.methods.mickey.trunk import sine_encoding
from metriloc.types import View

TOLERANCE = 2e-5  # relative to the maximum; the reference itself is within 2e-5 of independent implementations
HEADS = {
    "det_offset": "offset_head",
    "depth_head": "depth_head",
    "det_head": "score_head",
    "dsc_head": "descriptor_head",
}
SMALL = MicKeyConfig(backbone=None, blocks=(12, 10, 16, 8), descriptor_dim=6)
TINY_VIT = DinoV2Config(embed_dim=16, depth=1, num_heads=2, image_size=56)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach() - expected).abs().max() / expected.abs().max())


class Strided(nn.Module):
    """A backbone of any stride and width; batch norm, so that training mode shows."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels
        self.conv = nn.Conv2d(3, channels, stride, stride)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(image))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These convolutions are too small to share among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def io(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))


@pytest.fixture(scope="module")
def pristine(shared: Callable[[str], Path]) -> MicKeyNetwork:
    weights = from_official(load_file(shared("golden/mickey/mickey_tiny_weights.safetensors")))
    network = MicKeyNetwork(config_from_weights(weights, num_heads=4))
    network.load_state_dict(weights, strict=True)
    return network.eval()


@pytest.fixture()
def network(pristine: MicKeyNetwork) -> MicKeyNetwork:
    return copy.deepcopy(pristine)


@pytest.fixture(scope="module")
def activations(pristine: MicKeyNetwork, io: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of the modules that the reference recorded, on image 0."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out))
        for name, module in pristine.named_modules()
    ]
    with torch.no_grad():
        pristine(io["image0"].float() / 255)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("theirs", HEADS)
def test_every_intermediate_value(theirs: str, activations: dict[str, Tensor], io: dict[str, Tensor]) -> None:
    ours = HEADS[theirs]
    names = {f"resblock{i}": f"block{i}" for i in (1, 2, 3, 4)}
    names |= {f"att_layer.layers.{i}": f"attention.layers.{i}" for i in (0, 1, 2)}
    names |= {"att_layer": "attention", "score": "output", "xy_offset": "output", "depth": "output"}
    checked = 0
    for theirs_part, ours_part in names.items():
        expected = io.get(f"act0.{theirs}.{theirs_part}")
        if expected is not None:
            assert relative(activations[f"{ours}.{ours_part}"], expected) < TOLERANCE, theirs_part
            checked += 1
    assert checked == (8 if theirs == "dsc_head" else 9)
    block3 = io[f"act0.{theirs}.resblock3"]
    encoded = block3 + sine_encoding(128, 17, 12, block3)
    assert relative(encoded, io[f"act0.{theirs}.att_layer.posEnc"]) < 1e-6


@torch.no_grad()
def test_the_maps(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    maps = network(io["image0"].float() / 255)
    for ours, theirs in (("offset", "offset"), ("depth", "depth"), ("score", "score"), ("descriptor", "dsc")):
        assert relative(getattr(maps, ours), io[f"map0.{theirs}"]) < TOLERANCE, ours
    assert (maps.depth < 0).any()  # nothing clamps depths
    assert abs(float(maps.score.sum()) - 1) < 1e-5


@torch.no_grad()
def test_keypoints_of_a_pair(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    for i in (0, 1):
        found = keypoints(network(io[f"image{i}"].float() / 255), network.stride)
        assert found.grid == (17, 12)
        assert relative(found.uv.mT, io[f"pair.kps{i}"]) < TOLERANCE
        assert relative(found.depth[:, None], io[f"pair.depth_kp{i}"]) < TOLERANCE
        assert relative(found.score[:, None], io[f"pair.scr{i}"]) < TOLERANCE
        assert relative(found.descriptor.mT, io[f"pair.dsc{i}"]) < TOLERANCE


def test_keypoints_are_in_their_cells_row_by_row() -> None:
    offset = torch.stack([torch.full((3, 4), 0.25), torch.full((3, 4), 0.75)])[None]
    ramp = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = keypoints(KeypointMaps(offset, ramp - 5, ramp, ramp.expand(1, 7, 3, 4)), 8)
    assert found.uv[0, 6].tolist() == [8 * 2.25, 8 * 1.75]  # row 1, column 2
    assert found.depth[0, 6] == 1 and found.depth[0, 0] == -5
    assert found.descriptor.shape == (1, 12, 7)


def test_training_step_is_the_published_one(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    network.train()
    assert not network.backbone.training  # frozen: evaluation mode and no gradients, also now
    maps = network(torch.cat([io["image0"], io["image1"]]).float() / 255)
    named = {"offset": maps.offset, "depth": maps.depth, "score": maps.score, "dsc": maps.descriptor}
    for name, value in named.items():
        assert relative(value, io[f"train.{name}"]) < TOLERANCE, name
    norm = network.score_head.block1.bn1
    assert relative(norm.running_mean, io["train.det_head.resblock1.bn1.running_mean"]) < 1e-6
    assert relative(norm.running_var, io["train.det_head.resblock1.bn1.running_var"]) < 1e-6
    loss = published_loss(maps, io)
    assert relative(loss, io["train.loss"]) < 1e-5
    loss.backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())


def published_loss(maps: KeypointMaps, io: dict[str, Tensor]) -> Tensor:
    weight = {name: io[f"train.gradweight.{name}"].to(maps.depth) for name in ("offset", "depth", "score", "dsc")}
    loss = (maps.offset * weight["offset"]).sum() + (maps.depth * weight["depth"]).sum()
    return loss + 1000 * (maps.score * weight["score"]).sum() + (maps.descriptor * weight["dsc"]).sum()


def test_gradients_are_the_published_ones(
    network: MicKeyNetwork, io: dict[str, Tensor], generator: torch.Generator
) -> None:
    # Two ReLUs have inputs within float32 rounding of zero, and each side has its gradient (1.3e-3 and 5e-5 apart). The
    # reference took one side of each, so features are moved by rounding-sized amounts until the sides agree; float64
    # otherwise. Every parameter must then agree to 2e-5; no parameter moves that has no such ReLU above it.
    network.double().train()
    parameters = {
        "depth_head.depth.weight": network.depth_head.output.weight,
        "det_head.resblock1.conv1.weight": network.score_head.block1.conv1.weight,
        "det_head.score.weight": network.score_head.output.weight,
        "det_offset.att_layer.layers.0.q_proj.weight": network.offset_head.attention.layers[0].q.weight,
        "dsc_head.att_layer.layers.1.mlp.0.weight": network.descriptor_head.attention.layers[1].mlp1.weight,
    }
    features = network.features(torch.cat([io["image0"], io["image1"]]).double() / 255)
    errors: dict[str, list[float]] = {name: [] for name in parameters}
    for _ in range(12):
        noise = torch.randn(features.shape, generator=generator, dtype=features.dtype)
        loss = published_loss(network.heads(features * (1 + 3e-7 * noise)), io)
        for (name, found), value in zip(
            errors.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True
        ):
            found.append(relative(value, io[f"train.grad.{name}"]))
        if all(min(found) < 2e-5 for found in errors.values()):
            break
    assert {name: min(found) for name, found in errors.items() if min(found) >= 2e-5} == {}
    kinks = ("det_head.resblock1.conv1.weight", "det_offset.att_layer.layers.0.q_proj.weight")
    assert max(max(found) for name, found in errors.items() if name not in kinks) < 2e-5


@torch.no_grad()
def test_images_are_cropped_at_the_right_and_bottom(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    image = io["image0"].float() / 255
    whole, cropped = network(image), network(image[..., : 17 * 14, : 12 * 14])
    assert all(torch.equal(getattr(whole, f.name), getattr(cropped, f.name)) for f in dataclasses.fields(whole))


@torch.no_grad()
def test_photos_of_a_batch_do_not_touch_each_other(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    images = torch.cat([io["image0"], io["image1"]]).float() / 255
    both, second = network(images), network(images[1:])
    assert relative(both.score[1:], second.score) < 1e-5 and relative(both.depth[1:], second.depth) < 1e-5


@torch.no_grad()
def test_folded_batch_norms_change_nothing(network: MicKeyNetwork, io: dict[str, Tensor]) -> None:
    image = io["image0"].float() / 255
    before = {key: value.clone() for key, value in network.state_dict().items()}
    expected = network.train().eval()(image)
    folded = network.train().fold_batch_norms()
    assert network.training and not folded.training  # the original is left as it was
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) for name, m in folded.named_modules() if "backbone" not in name)
    assert folded.backbone is network.backbone
    found = folded(image)
    for field in dataclasses.fields(found):
        assert relative(getattr(found, field.name), getattr(expected, field.name)) < 1e-5, field.name


def test_folding_leaves_a_trainable_backbone_alone() -> None:
    network = MicKeyNetwork(dataclasses.replace(SMALL, train_backbone=True), Strided(8, 5)).train()
    folded = network.fold_batch_norms()
    assert folded.backbone is not network.backbone and network.backbone.training
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize(("stride", "channels"), [(8, 24), (16, 7)])
@pytest.mark.parametrize("trained", [False, True])
def test_another_backbone(stride: int, channels: int, trained: bool) -> None:
    network = MicKeyNetwork(dataclasses.replace(SMALL, train_backbone=trained), Strided(stride, channels)).train()
    maps = network(torch.rand(2, 3, 10 * stride + 3, 8 * stride + stride - 1))
    assert maps.descriptor.shape == (2, 6, 10, 8) and maps.offset.shape == (2, 2, 10, 8)
    (maps.depth.sum() + (maps.score * torch.rand_like(maps.score)).sum()).backward()
    backbone = network.backbone
    assert isinstance(backbone, Strided)
    assert backbone.training is trained
    assert (backbone.conv.weight.grad is not None) is trained
    assert bool(backbone.norm.num_batches_tracked > 0) is trained
    assert keypoints(maps, network.stride).uv.max() <= 10 * stride


def test_a_trained_dinov2_gets_gradients() -> None:
    config = dataclasses.replace(SMALL, backbone=TINY_VIT, train_backbone=True)
    network = MicKeyNetwork(config)
    network(torch.rand(1, 3, 112, 112)).depth.sum().backward()
    assert all(p.grad is not None for name, p in network.backbone.named_parameters() if name != "mask_token")


@torch.no_grad()
def test_grids_beyond_256_cells() -> None:
    network = MicKeyNetwork(SMALL, Strided(8, 4)).eval()
    maps = network(torch.rand(1, 3, 80, 8 * 300))
    assert maps.score.shape[-2:] == (10, 300)
    assert all(getattr(maps, f.name).isfinite().all() for f in dataclasses.fields(maps))
    encoding = sine_encoding(128, 2, 300, torch.zeros(()))
    assert torch.equal(encoding[..., :256], sine_encoding(128, 2, 256, torch.zeros(())))
    for k in (0, 5, 31):  # the formula, with positions from 1
        w = 10000.0 ** (-2 * k / 64)
        expected = torch.tensor([288 * w, 288 * w, 2 * w, 2 * w]).double()
        expected = torch.stack([expected[0].sin(), expected[1].cos(), expected[2].sin(), expected[3].cos()])
        torch.testing.assert_close(encoding[0, 4 * k : 4 * k + 4, 1, 287].double(), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("cells", [(1, 1), (5, 20), (6, 6), (20, 6)])
def test_grids_that_are_all_border_have_no_score(softmax: bool, cells: tuple[int, int]) -> None:
    network = MicKeyNetwork(dataclasses.replace(SMALL, use_softmax=softmax), Strided(8, 4)).eval()
    maps = network(torch.rand(1, 3, 8 * cells[0], 8 * cells[1]))
    assert maps.score.shape[-2:] == cells and not maps.score.any()
    assert maps.depth.isfinite().all()


def test_spatial_softmax_is_the_published_formula(generator: torch.Generator) -> None:
    logits = 300 * torch.randn(2, 1, 9, 11, generator=generator, dtype=torch.float64)
    shifted = logits - logits.mean((-2, -1), keepdim=True)
    exponential = torch.exp(shifted / 100)
    for border in (slice(0, 3), slice(-3, None)):
        exponential[..., border, :] = 0
        exponential[..., border] = 0
    expected = exponential / (exponential.sum((-2, -1), keepdim=True) + 1e-16)
    torch.testing.assert_close(spatial_softmax(logits, 100.0, 3), expected, rtol=1e-12, atol=1e-15)
    assert spatial_softmax(1e6 * logits, 100.0, 3).isfinite().all()  # the published one overflows here
    leaf = logits[:1, :, :7, :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spatial_softmax(x, 100.0, 3), leaf)


@torch.no_grad()
def test_options_of_the_heads() -> None:
    options = dataclasses.replace(
        SMALL, use_softmax=False, max_depth=60.0, normalize_descriptors=False, batch_norm=False, border=1
    )
    image = torch.rand(1, 3, 80, 96)
    network = MicKeyNetwork(options, Strided(8, 4)).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.depth_head.modules())
    maps, features = network(image), network.features(image)
    torch.testing.assert_close(maps.depth, 60 * torch.sigmoid(network.depth_head(features)))
    inner = torch.sigmoid(network.score_head(features))[..., 1:-1, 1:-1]
    torch.testing.assert_close(maps.score[..., 1:-1, 1:-1], inner)
    assert maps.score.count_nonzero() == inner.numel()
    torch.testing.assert_close(maps.descriptor, network.descriptor_head(features))
    assert (maps.descriptor < 0).any()  # no ReLU at the end of the descriptor head
    plain = MicKeyNetwork(dataclasses.replace(SMALL, position_encoding=False), Strided(8, 4)).eval()
    assert not plain.depth_head.attention.encode and plain.descriptor_head.attention.encode
    tokens = plain.depth_head.attention(torch.ones(1, 16, 3, 4))
    assert relative(tokens, tokens[..., :1, :1].expand_as(tokens)) < 1e-6  # nothing tells cells apart


def test_precision_rules() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    auto, frozen = MicKeyConfig(), MicKeyConfig(precision="fp32")
    assert backbone_dtype(auto, cpu) is None and backbone_dtype(auto, cuda) is torch.float16
    assert backbone_dtype(frozen, cpu) is None and backbone_dtype(frozen, cuda) is None
    assert backbone_dtype(MicKeyConfig(precision="bf16"), cuda) is torch.bfloat16
    assert backbone_dtype(MicKeyConfig(train_backbone=True), cuda) is None
    for half in ("fp16", "bf16"):
        network = MicKeyNetwork(dataclasses.replace(SMALL, precision=half), Strided(8, 4))
        with pytest.raises(ValueError, match=f"precision '{half}' is much slower"):
            network(torch.rand(1, 3, 64, 64))
        with pytest.raises(ValueError, match=f"trained needs precision 'fp32' or 'auto', got '{half}'"):
            dataclasses.replace(SMALL, precision=half, train_backbone=True)


@torch.no_grad()
def test_half_precision_casts_the_whole_backbone_and_keeps_the_weights(
    network: MicKeyNetwork, io: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metriloc.methods.mickey.network.backbone_dtype", lambda config, device: torch.float16)
    image = io["image0"].float() / 255
    features = network.features(image)
    assert features.dtype == torch.float32 and torch.equal(features, features.half().float())
    tokens = features.flatten(2).mT
    assert (tokens - io["dino0.x_norm_patchtokens_fp16"]).abs().max() <= 2 * 2**-9
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert torch.equal(features, network.features(image))  # from the copy kept
    network.backbone.norm.bias.add_(1)  # a change of the weights is seen
    assert (network.features(image) - features).min() > 0.9
    assert len(network.state_dict()) == len(copy.deepcopy(network).state_dict())
    network.double()
    assert network._cast is None and network.features(image.double()).dtype == torch.float64


def test_float64_throughout() -> None:
    network = MicKeyNetwork(SMALL, Strided(8, 4)).double().eval()
    assert network(torch.rand(1, 3, 80, 80)).depth.dtype == torch.float64


def test_configuration_round_trip() -> None:
    for config in (MicKeyConfig(), SMALL, MicKeyConfig(backbone=TINY_VIT, max_depth=60.0, precision="fp32")):
        assert MicKeyConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(ValueError, match=r"not a MicKey network configuration: .*colour"):
        MicKeyConfig.from_dict({"colour": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": (8, 8, 12, 8)}, "third a multiple of 8"),
        ({"blocks": (8, 8, 8)}, "four widths"),
        ({"max_depth": 0.0}, "max_depth must be positive, got 0"),
        ({"score_temperature": -1.0}, "score_temperature must be positive, got -1"),
        ({"border": -1}, "border must not be negative, got -1"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, fp16, bf16, got 'fp8'"),
    ],
)
def test_wrong_configurations_raise(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_wrong_use_raises() -> None:
    with pytest.raises(ValueError, match="hand a backbone"):
        MicKeyNetwork(SMALL)
    with pytest.raises(ValueError, match=r"must be an nn\.Module, got str"):
        MicKeyNetwork(SMALL, "vit")  # type: ignore[arg-type]
    network = MicKeyNetwork(SMALL, Strided(8, 4))
    with pytest.raises(ValueError, match="12x7 pixels is smaller than a cell of 8"):
        network(torch.rand(1, 3, 7, 12))
    for image in (torch.rand(3, 64, 64), torch.rand(1, 1, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"image must be floats of shape \[B, 3, H, W\]"):
            network(image)


def test_new_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    network = MicKeyNetwork(dataclasses.replace(SMALL, blocks=(8, 8, 128, 8)), Strided(8, 4))
    layers = network.depth_head.attention.layers
    bound = (6 / (256 + 256)) ** 0.5  # Xavier uniform
    assert 0.99 * bound < layers[0].mlp1.weight.abs().max() <= bound
    assert not torch.equal(layers[0].q.weight, layers[1].q.weight)
    assert network.dustbin.item() == 1


@torch.no_grad()
def test_a_model_sees_with_the_weights_it_has_now() -> None:
    """Folded norms are forgotten when a weight changes, also one that is changed in place."""
    torch.manual_seed(0)
    model = MicKey(MicKeyNetwork(SMALL, Strided(8, 4)))
    view = View(torch.rand(3, 48, 64), Camera.from_fov((64, 48), 1.0))
    first = model.extract(view).keypoints
    torch.testing.assert_close(first.uv, model.network.detect(view.image[None], Camera.stack([view.camera])).uv)
    model.network.offset_head.output.weight += 1  # type: ignore[operator]
    again = model.extract(view).keypoints
    assert not torch.allclose(again.uv, first.uv)
    torch.testing.assert_close(again.uv, model.network.detect(view.image[None], Camera.stack([view.camera])).uv)
