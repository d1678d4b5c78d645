"""Localizers whose networks are on another device than the photos: nothing mixes the two, and the pose is the same.

The device is none: its numbers stay on the CPU, but its tensors say that they are on ``sim:0``, and an operation between
one of them and one of the CPU fails as it does with a GPU. (Torch's own fake tensors hold no numbers, and localizing
branches on numbers.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

import metriloc
from metriloc.choose import LocalizerChoice, choose_localizer, require_device
from metriloc.io import InputError
from metriloc.opened_map import open_map
from metriloc.types import AbsolutePoseMethod, PoseEstimate, SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"

_KEPT: list[Any] = []


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met in one operation."""


class SimulatedTensor(torch.Tensor):
    """A tensor of the device; ``held`` are its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl


def _there(held: torch.Tensor) -> torch.Tensor:
    tensor = torch._C._acc.create_empty_tensor(tuple(held.shape), held.dtype)
    tensor.__class__ = SimulatedTensor
    tensor.held = held
    return tensor


def _here(value: Any) -> Any:
    return value.held if isinstance(value, SimulatedTensor) else value


def _is_foreign(value: Any) -> bool:
    # as on a GPU, a tensor of one number may come from anywhere
    return isinstance(value, torch.Tensor) and not isinstance(value, SimulatedTensor) and value.ndim > 0


_INDEXED = (
    "aten::index.Tensor",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
)
"""Indices, second of the arguments, may be on the CPU."""
_COPIES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize")


def _fallback(operation: Any, *arguments: Any, **options: Any) -> Any:
    name = operation._schema.name + (f".{operation._schema.overload_name}" if operation._schema.overload_name else "")
    checked = [a for k, a in enumerate(arguments) if not (name.startswith(_INDEXED) and k == 1)]
    assert name != "aten::as_strided", "a view that this device does not know"
    leaves = tree_flatten((checked, options))[0]
    if not name.startswith(_COPIES) and any(map(_is_foreign, leaves)):
        raise MixedDevicesError(f"{name} mixes tensors of two devices")
    device = options.get("device")
    if device is not None:
        options = {**options, "device": torch.device("cpu")}
    if name.startswith("aten::_copy_from"):
        source, target = arguments[:2]
        _here(target).copy_(_here(source))
        return target
    kinds = [str(argument.type) for argument in operation._schema.arguments]
    arguments = tuple(
        torch.tensor(a) if kind == "Tensor" and isinstance(a, (bool, int, float)) else a
        for a, kind in zip(arguments, kinds, strict=False)
    )
    if name in ("aten::view", "aten::_reshape_alias"):  # these tensors look contiguous, whatever their numbers are
        operation, arguments = torch.ops.aten.reshape.default, arguments[:2]
    found = operation(*tree_map(_here, arguments), **tree_map(_here, options))
    to_cpu = device is not None and torch.device(device).type == "cpu"
    if to_cpu or name in ("aten::_local_scalar_dense",):
        return found
    # what works in place gives back the tensor that it was given
    given = {id(a.held): a for a in tree_flatten(arguments)[0] if isinstance(a, SimulatedTensor)}

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given[id(value)] if id(value) in given else _there(value)

    return tree_map(back, found)


def _through(operation: Any) -> Any:
    """For what torch would take apart into steps that look at how the numbers lie in memory."""

    def run(*arguments: Any, **options: Any) -> Any:
        if any(map(_is_foreign, arguments)):
            raise MixedDevicesError(f"{operation} mixes tensors of two devices")
        options = {key: value for key, value in options.items() if key not in ("device", "pin_memory")}
        found = operation(*tree_map(_here, arguments), **options)
        return tree_map(lambda value: _there(value) if isinstance(value, torch.Tensor) else value, found)

    return run


_WHOLE = (
    *(
        "detach",
        "matmul",
        "t",
        "alias",
        "slice.Tensor",
        "select.int",
        "expand",
        "permute",
        "transpose.int",
        "unbind.int",
    ),
    *("unsqueeze", "squeeze", "squeeze.dim", "squeeze.dims", "unfold", "diagonal", "split.Tensor", "split_with_sizes"),
    *("index.Tensor", "abs", "angle", "eye", "eye.m", "linspace", "arange", "arange.start", "arange.start_step"),
)


@pytest.fixture()
def sim() -> str:
    """The name of the device, once it is there. Skips where this torch cannot have one."""
    if not _KEPT:
        try:
            from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
        except ImportError:
            pytest.skip("this torch has no devices in Python")
        _setup_privateuseone_for_python_backend("sim")
        library = torch.library.Library("_", "IMPL")
        library.fallback(_fallback, "PrivateUse1")
        own = torch.library.Library("aten", "IMPL")
        own.impl("convolution_overrideable", _through(torch.ops.aten.convolution), "PrivateUse1")
        for name in _WHOLE:
            packet, _, overload = name.partition(".")
            own.impl(name, _through(getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1")
        _KEPT.extend([library, own])
    return "sim"


def test_the_device_tells_when_it_is_mixed(sim: str) -> None:
    there = torch.arange(6.0, device=sim).reshape(2, 3)
    assert there.device.type == "sim" and torch.equal((2 * there + 1).cpu(), 2 * torch.arange(6.0).reshape(2, 3) + 1)
    assert there[torch.tensor([1])].device.type == "sim" and bool((there > 3).any())
    for mix in (
        lambda: there + torch.ones(2, 3),
        lambda: torch.cat([there, torch.ones(2, 3)]),
        lambda: torch.ones(4, 2) @ there,
        lambda: torch.ones(2, 3)[there[0].long().clamp(max=1)],
        lambda: there.gather(1, torch.zeros(2, 1, dtype=torch.long)),
    ):
        with pytest.raises(RuntimeError, match="device"):
            mix()


def photo_and_map(model: Path) -> tuple[View, SfmMap]:
    return metriloc.load_view(EXAMPLE / "query.jpg"), open_map(model, EXAMPLE).scene


def found_by(method: AbsolutePoseMethod, model: Path) -> PoseEstimate:
    query, scene = photo_and_map(model)
    return method.localize(query, scene, ["reference.jpg"])


CHOICES = [
    ("nre-xfeat", "sim"),
    ("nre-xfeat", "sim,cpu"),
    ("nre-xfeat", "cpu,sim"),
    ("pixloc", "sim"),
    ("xfeat-pnp", "sim"),
]


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize(("name", "device"), CHOICES)
def test_localizers_do_not_mix_devices(name: str, device: str, sim: str, example_map: Path) -> None:
    here = found_by(_chosen(name, "cpu"), example_map)
    there = found_by(_chosen(name, device), example_map)
    assert bool(here.success) and bool(there.success), there.reason
    assert there.pose.R.device.type == "cpu"
    assert float(there.pose.angle_to(here.pose)) < 1e-3 and float(there.pose.center_distance(here.pose)) < 1e-2


def _chosen(name: str, device: str) -> AbsolutePoseMethod:
    try:
        return choose_localizer(LocalizerChoice(name, device=device))
    except InputError as error:
        pytest.skip(str(error))


def test_devices_are_one_or_of_nre_two(sim: str) -> None:
    require_device("cpu,cpu")
    with pytest.raises(InputError, match="no device 'cuda:99'"):
        require_device("cpu,cuda:99")
    with pytest.raises(InputError, match="nre takes two"):
        require_device("cpu,cpu,cpu")
    with pytest.raises(InputError, match="pixloc has no stages"):
        choose_localizer(LocalizerChoice("pixloc", device="cpu,cpu"))
