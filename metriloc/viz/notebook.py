"""What a notebook shows of an answer: the report of ``metriloc relpose`` or ``localize``, drawn
when it is looked at.

An estimate that waits to be drawn holds its photos as small JPEGs, so that a list of thousands
costs little memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from metriloc.geometry import Camera
from metriloc.io.images import decode_image
from metriloc.types import PoseEstimate, SfmMap, View
from metriloc.version import __version__
from metriloc.viz.localize_report import localization_report
from metriloc.viz.localized import LocalizedQuery
from metriloc.viz.markup import PICTURE_SIDE, SoftwareFacts
from metriloc.viz.matches import match_picture
from metriloc.viz.pictures import Picture, encode_jpeg, rgb_from_image
from metriloc.viz.relpose_report import QueryReport, RelposeReport, relpose_report

PAGE_HEIGHT = 720
"""Pixels of the frame in which a notebook shows a page."""


@dataclass(frozen=True, eq=False)
class SmallPhoto:
    """A photo reduced for a notebook, as a JPEG. It is reduced by a whole ``factor`` until its longer side has at most
    1,000 pixels or so."""

    jpeg: bytes
    camera: Camera
    factor: int
    name: str
    intrinsics_source: str

    @classmethod
    def of(cls, view: View) -> SmallPhoto:
        """The small copy of a photo."""
        factor = -(-max(view.size) // PICTURE_SIDE)
        factor = max(1, min(factor, *view.size))
        image = view.image.detach().float().cpu()
        image = torch.nn.functional.avg_pool2d(image[None], factor)[0] if factor > 1 else image
        jpeg = encode_jpeg(rgb_from_image(image))
        return cls(jpeg, view.camera.detach().cpu(), factor, view.name, view.intrinsics_source)

    def view(self) -> View:
        """The photo again, with the camera of its size."""
        image = torch.from_numpy(decode_image(self.jpeg, name=self.name).rgb).permute(2, 0, 1).float() / 255
        camera = self.camera.scale(1 / self.factor)
        camera = replace(camera, size=camera.size.new_tensor([image.shape[2], image.shape[1]]))
        source = f"{self.intrinsics_source}; shown at {image.shape[2]}x{image.shape[1]}"
        return View(image, camera, name=self.name, intrinsics_source=source)


def with_page(
    estimate: PoseEstimate, reference: View, query: View, method: str = "", weights: str = "", seed: int = 0
) -> PoseEstimate:
    """The estimate of a pair, with a page for notebooks. It shows photos, matches and the 3D view where a notebook
    displays it."""
    facts = SoftwareFacts(__version__, method, weights, seed)
    return replace(estimate, page=partial(_pair_page, SmallPhoto.of(reference), SmallPhoto.of(query), facts))


def with_map_page(
    estimate: PoseEstimate, query: View, scene: SfmMap, method: str = "", weights: str = "", seed: int = 0
) -> PoseEstimate:
    """The estimate in a map, with a page for notebooks. It shows the photo and the map where a notebook displays it; it
    keeps hold of the map."""
    facts = SoftwareFacts(__version__, method, weights, seed)
    return replace(estimate, page=partial(_map_page, SmallPhoto.of(query), scene, facts))


def _pair_page(reference: SmallPhoto, query: SmallPhoto, facts: SoftwareFacts, estimate: PoseEstimate) -> str:
    view0, view1 = reference.view(), query.view()
    details = tuple(
        replace(
            d,
            inliers=replace(
                d.inliers,
                uv0=(d.inliers.uv0 + 0.5) / reference.factor - 0.5,
                uv1=(d.inliers.uv1 + 0.5) / query.factor - 0.5,
            ),
        )
        for d in estimate.details
    )
    small = replace(estimate, details=details)
    pictures = tuple(Picture("Inlier matches", match_picture(view0.image, view1.image, d.inliers)) for d in details)
    title = f"{Path(view0.name).name} and {Path(view1.name).name}"
    return _framed(relpose_report(RelposeReport(title, view0, (QueryReport(view1, small, pictures),), facts)))


def _map_page(query: SmallPhoto, scene: SfmMap, facts: SoftwareFacts, estimate: PoseEstimate) -> str:
    name = "the map" if scene.folder is None else Path(scene.folder).name
    return _framed(localization_report(LocalizedQuery(query.view(), estimate, scene), name, facts))


def _framed(page: str) -> str:
    """A whole page inside of another: its style stays its own, and nothing but its viewer may
    run."""
    return (
        f'<iframe srcdoc="{escaped_page(page)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{PAGE_HEIGHT}px;border:0" title="pose estimate"></iframe>'
    )


def escaped_page(page: str) -> str:
    """A page as the value of an attribute in double quotes."""
    return page.replace("&", "&amp;").replace('"', "&quot;")
