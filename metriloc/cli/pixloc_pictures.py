"""``metriloc pixloc confidences | damping``: what a PixLoc network trusts in photos, and how it damps its steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.choose import require_device
from metriloc.cli.terminal import counted, print_lines, text_table
from metriloc.io import InputError, load_view, write_atomically
from metriloc.mapping.photos import list_photos
from metriloc.methods.pixloc import NetworkExtractor, PixLoc
from metriloc.viz.damping import PARAMETERS, damping_picture
from metriloc.viz.features import confidence_picture
from metriloc.viz.pictures import Rgb, encode_png
from metriloc.viz.video import encode_gif, encode_video, find_ffmpeg

_SIDE = 640


def confidences(
    photos: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PHOTO...")],
    out: Path,
    weights: str = "pixloc-small",
    fps: float = 10.0,
    side: int = _SIDE,
    device: str = "cpu",
) -> int:
    """Film the confidences of PixLoc's features over a sequence of photos.

    Red is not trusted, green most.

    Args:
        photos: Photos in their order, or one folder of them. All must have one size.
        out: File of the film: .mp4 (H.264, by ffmpeg) or .gif.
        weights: Folder, file, bundled or hub name of PixLoc weights with confidences.
        fps: Photos a second.
        side: Longest side of the film in pixels.
        device: cpu, cuda, cuda:1, ...
    """
    if out.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"--out {out}: a film is called .mp4 or .gif")
    if not 0 < fps <= 60 or not 16 <= side <= 4096:
        raise InputError(f"--fps must be above 0 and at most 60, --side in 16..4096, got {fps:g} and {side}")
    if out.suffix.lower() == ".mp4":
        find_ffmpeg()  # before any work
    files = list_photos(photos[0]) if len(photos) == 1 and photos[0].is_dir() else list(photos)
    if not files:
        raise InputError("there are no photos to film")
    require_device(device)
    extractor = PixLoc.from_pretrained(weights, device=device).extractor
    frames: list[Rgb] = []
    for file in counted("photos", files):
        frames.append(_frame(extractor, file, side, weights))
        if frames[-1].shape != frames[0].shape:
            raise InputError(f"'{file}' has another shape than '{files[0]}': a film needs photos of one size")
    film = encode_gif(frames, fps=fps) if out.suffix.lower() == ".gif" else encode_video(frames, fps=fps)
    write_atomically(out, film)
    print_lines([f"{len(frames)} photos at {fps:g} a second: {out}"])
    return 0


def _frame(extractor: object, file: Path, side: int, weights: str) -> Rgb:
    view = load_view(file, warn_of_guess=False)
    found = extractor(view, 1) if isinstance(extractor, NetworkExtractor) else None
    if found is None:
        raise InputError(f"'{file}' is too small for the network")
    if found.pyramid.confidences is None:
        raise InputError(f"the weights {weights!r} have no confidences")
    return confidence_picture(view, [level[0, 0] for level in found.pyramid.confidences], side)


def damping(weights: str = "pixloc-small", out: Path | None = None) -> int:
    """The learned damping factors of a PixLoc network, by level and parameter.

    As a table, and as bars.

    Args:
        weights: Folder, file, bundled or hub name of PixLoc weights.
        out: PNG file of the bars, on a logarithmic scale.
    """
    extractor = PixLoc.from_pretrained(weights).extractor
    factors = [extractor.damping(level) for level in range(extractor.num_levels)]
    levels = [(f"level {k}", six.tolist()) for k, six in enumerate(factors) if six is not None]
    if not levels:
        raise InputError(f"the weights {weights!r} have no learned damping")
    rows = [("(0 is the finest)", *PARAMETERS), *((name, *(f"{v:.3g}" for v in six)) for name, six in levels)]
    print("\n".join(text_table(rows)))
    if out is not None:
        logs = [math.log10(value) for _, six in levels for value in six]
        write_atomically(out, encode_png(damping_picture(levels, min(-6.0, *logs), max(5.0, *logs))))
        print_lines([f"written to {out}"])
    return 0
