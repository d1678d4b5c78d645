"""All figures of one GPU in one table: pairs, cached references, batches, queries in maps, training, memory, waiting.

    python benchmarks/gpu.py [--device cuda] [--repeats 20] [--out gpu.md]

Official shapes with random weights (times do not depend on them): MicKey with DINOv2 ViT-L at 720x540 in single and half
precision, its backbone as CUDA graphs (``torch.compile(mode="reduce-overhead")``), PixLoc with the VGG16 U-Net at 1024x768,
NRE's two networks, and a step of MicKey's published training. The floor of a row is its bare network; both sides of a
ratio alternate in one run, and numbers are medians. A row that fails says why, and the others go on. ``--small`` runs
everything with tiny networks, also on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from pixloc import make_scene

from metriloc.backbones import VIT_L, DinoV2Config
from metriloc.backbones.local import resize_to_longer_side
from metriloc.geometry import Camera, Pose
from metriloc.io.files import write_atomically
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyNetwork, MicKeyTraining, PairBatch
from metriloc.methods.nre.features import NREFeatures
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.methods.pixloc.extractor import NetworkExtractor, ResizeConfig
from metriloc.methods.pixloc.model import LocalizeConfig, PixLoc
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.types import View


@dataclass(frozen=True)
class Scale:
    """What is measured. photo: (width, height) of MicKey's; side: of PixLoc's and NRE's; batch: of photos; pairs: of a
    training step on one GPU, as published."""

    backbone: DinoV2Config = VIT_L
    blocks: tuple[int, int, int, int] = (512, 256, 128, 64)
    photo: tuple[int, int] = (540, 720)
    side: int = 1024
    batch: int = 8
    pairs: int = 8


SMALL = Scale(DinoV2Config(32, 2, 2), (16, 16, 16, 8), (98, 126), 128, 2, 2)


@dataclass(frozen=True)
class Row:
    """One line. milliseconds of the whole and of its floor, the bare network."""

    name: str
    milliseconds: float
    floor: float
    megabytes: float
    waits: int
    per_second: float


class Bench:
    """Measures on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = torch.device(device), repeats

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def row(self, name: str, whole: Callable[[], object], floor: Callable[[], object], count: int = 1) -> Row:
        """count: things that a call of ``whole`` deals with."""
        times: dict[str, list[float]] = {"whole": [], "floor": []}
        for number in range(-2, self.repeats):
            for key, call in (("whole", whole), ("floor", floor)):
                self.wait()
                start = time.perf_counter()
                call()
                self.wait()
                if number >= 0:
                    times[key].append(1000 * (time.perf_counter() - start))
        taken = statistics.median(times["whole"])
        return Row(name, taken, statistics.median(times["floor"]), *self.memory_and_waits(whole), 1000 * count / taken)

    def memory_and_waits(self, call: Callable[[], object]) -> tuple[float, int]:
        """Peak megabytes on the GPU, and how often the processor waited for it."""
        if not self.is_gpu:
            return float("nan"), 0
        torch.cuda.reset_peak_memory_stats(self.device)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroniz" in str(warning.message) for warning in told)
        return torch.cuda.max_memory_allocated(self.device) / 2**20, waits


def photo_of(size: tuple[int, int], seed: int) -> View:
    """Noise."""
    image = torch.rand(3, size[1], size[0], generator=torch.Generator().manual_seed(seed))
    return View(image, Camera.from_fov(size, 0.9))


def mickey_rows(bench: Bench, scale: Scale) -> Iterator[Callable[[], Row]]:
    """Pairs in each precision, a cached reference, a batch of photos, CUDA graphs."""
    views = photo_of(scale.photo, 0), photo_of(scale.photo, 1)
    images = [view.image[None].to(bench.device) for view in views]
    batch = images[0].repeat(scale.batch, 1, 1, 1)
    precisions = ("fp16", "bf16", "fp32") if bench.is_gpu else ("fp32",)
    for precision in precisions:
        config = MicKeyConfig(scale.backbone, scale.blocks, precision=precision)  # type: ignore[arg-type]
        model = MicKey(MicKeyNetwork(config)).to(bench.device)
        reference = model.extract(views[0])

        @torch.no_grad()
        def bare(model: MicKey = model) -> None:
            for image in images:
                model.network(image)

        @torch.no_grad()
        def one(model: MicKey = model) -> None:
            model.network(images[1])

        @torch.no_grad()
        def many(model: MicKey = model) -> None:
            model.network(batch)

        def pair(model: MicKey = model) -> object:
            return model.relative_pose(*views)

        def cached(model: MicKey = model, reference: object = reference) -> object:
            return model.relative_pose(reference, views[1])  # type: ignore[arg-type]

        yield lambda p=precision, a=pair, b=bare: bench.row(f"MicKey, a pair, {p}", a, b)  # type: ignore[misc]
        yield lambda p=precision, a=cached, b=one: bench.row(  # type: ignore[misc]
            f"MicKey, another query of a reference, {p}", a, b
        )
        yield lambda p=precision, a=many: bench.row(  # type: ignore[misc]
            f"MicKey's network, {scale.batch} photos at once, {p}", a, a, scale.batch
        )
    if bench.is_gpu:
        yield lambda: graph_row(bench, scale, images)


@torch.no_grad()
def graph_row(bench: Bench, scale: Scale, images: list[torch.Tensor]) -> Row:
    """The network of one size as CUDA graphs, beside itself."""
    network = MicKeyNetwork(MicKeyConfig(scale.backbone, scale.blocks, precision="fp32")).eval()
    network = network.fold_batch_norms().to(bench.device, torch.float16)
    half = images[0].half()
    compiled = torch.compile(lambda image: network.heads(network.backbone(image)).depth, mode="reduce-overhead")
    whole, crop = (lambda: compiled(half)), (lambda: network.heads(network.backbone(half)).depth)
    return bench.row("MicKey's network as CUDA graphs, one photo, fp16 (floor: without)", whole, crop)


def map_rows(bench: Bench, scale: Scale, folder: Path) -> Iterator[Callable[[], Row]]:
    """Queries of PixLoc and NRE (features that suit its networks) whose references are kept."""
    scene, query = make_scene(folder, scale.side, 1500)
    points = [pose.transform(scene.xyz) for pose in (scene.cam_from_world[image] for image in range(3))]
    uv = [camera.f * xyz[:, :2] / xyz[:, 2:] + camera.c for camera, xyz in zip(scene.cameras, points, strict=True)]
    scene = replace(scene, uv=torch.cat(uv))
    extractor = NetworkExtractor(PixLocNetwork().eval(), "random", ResizeConfig(scale.side)).to(bench.device)
    pixloc = PixLoc(extractor, config=LocalizeConfig(num_references=3, image_scales=(4, 1), check=False))
    yield lambda: bench.row(
        "PixLoc, a query, three references kept",
        lambda: pixloc.localize(query, scene, scene.names),
        lambda: [extractor(query, image_scale) for image_scale in (4, 1)],
    )
    levels = (NRENetworkConfig("coarse"), NRENetworkConfig("fine"))
    coarse, fine = (NREFeatures(NRENetwork(level)).to(bench.device) for level in levels)
    for features in (coarse, fine):  # random ones differ little: as sure of themselves as trained ones
        squares = features.dense(query.image).descriptors.square().sum(0)
        features.temperature = float(squares.var().sqrt() + squares.mean()) / 30  # type: ignore[misc]
    nre = NRE(coarse, fine)
    nre = nre.with_settings(replace(nre.settings, min_track=1))
    stages = nre.settings.coarse, nre.settings.fine
    seen = [resize_to_longer_side(query.image, min(stage.longest_side, scale.side)) for stage in stages]
    yield lambda: bench.row(
        "NRE, a query from a rough pose, three references kept",
        lambda: nre.localize(query, scene, scene.names, scene.cam_from_world[2]),
        lambda: [features.dense(image) for features, image in zip((coarse, fine), seen, strict=True)],
    )


def training_row(bench: Bench, scale: Scale) -> Row:
    """A step of the published training: forward, objective, backward, Adam."""
    network = MicKeyNetwork(MicKeyConfig(scale.backbone, scale.blocks)).to(bench.device)
    training = MicKeyTraining(network).train()
    pairs = scale.pairs
    images = torch.stack([photo_of(scale.photo, seed).image for seed in range(2 * pairs)])
    camera = Camera.stack([Camera.from_fov(scale.photo, 0.9)] * pairs)
    truth = Pose(torch.eye(3).expand(pairs, 3, 3), torch.tensor([0.1, 0.0, 0.2]).expand(pairs, 3))
    batch = PairBatch(images[:pairs], images[pairs:], camera, camera, truth).to(bench.device)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        training.training_step(batch, 0, torch.Generator().manual_seed(0)).loss.backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> None:
        network(batch.image0), network(batch.image1)

    return bench.row(f"MicKey's training, a step of {pairs} pairs", step, forward)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that everything runs")
    parser.add_argument("--out", type=Path, help="the table as a file, too")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --small shows that everything runs")
    bench, scale = Bench(arguments.device, arguments.repeats), SMALL if arguments.small else Scale()
    torch.manual_seed(0)
    where = torch.cuda.get_device_name(bench.device) if bench.is_gpu else arguments.device
    lines = [f"{datetime.date.today()}, {where}, torch {torch.__version__}, median of {arguments.repeats}", ""]
    lines += ["| what | ms | floor, ms | ratio | a second | peak MiB | waits |", "|---|--:|--:|--:|--:|--:|--:|"]
    print(*lines, sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        training = [lambda: training_row(bench, scale)]
        rows = chain(mickey_rows(bench, scale), map_rows(bench, scale, Path(folder)), training)
        for measure in rows:
            try:
                found = measure()
                ratio = found.milliseconds / found.floor
                line = f"| {found.name} | {found.milliseconds:.1f} | {found.floor:.1f} | {ratio:.2f} | "
                line += f"{found.per_second:.1f} | {found.megabytes:.0f} | {found.waits} |"
            except (RuntimeError, ValueError) as error:
                line = f"| not measured: {' '.join(str(error).split())[:120]} | | | | | | |"
            lines.append(line)
            print(line, flush=True)
    if arguments.out is not None:
        write_atomically(arguments.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
