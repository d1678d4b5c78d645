"""``metriloc track REFERENCE|MAP SOURCE``: the poses of a camera that moves, frame after frame."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from metriloc.cli.live import LiveOptions, shown_frames
from metriloc.cli.terminal import EXIT_NO_POSE, complain, hearing_sigterm, print_lines, printable
from metriloc.cli.track_options import DeviceOptions, TargetOptions, TrackOutput, TrackSettings
from metriloc.io import InputError
from metriloc.runs.track import run_track
from metriloc.runs.track_files import TrackFolder
from metriloc.runs.track_results import TrackedFrame, TrackRun, frame_in_words
from metriloc.streams.bag import BagOptions
from metriloc.streams.frames import Stream
from metriloc.streams.pace import Pace
from metriloc.streams.source import open_stream
from metriloc.streams.views import CameraOptions
from metriloc.tracking import Tracker
from metriloc.tracking.tracker import FRAMES, is_map

if TYPE_CHECKING:
    from metriloc.viz.live import LiveView


def track(
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REFERENCE|MAP")],
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")],
    camera: Annotated[CameraOptions, tyro.conf.arg(name="camera")] = CameraOptions(),  # noqa: B008 - frozen
    about: Annotated[TargetOptions, tyro.conf.arg(name="target")] = TargetOptions(),  # noqa: B008
    device: Annotated[DeviceOptions, tyro.conf.arg(name="poses")] = DeviceOptions(),  # noqa: B008
    bag: Annotated[BagOptions, tyro.conf.arg(name="bag")] = BagOptions(),  # noqa: B008
    how: Annotated[TrackSettings, tyro.conf.arg(name="settings")] = TrackSettings(),  # noqa: B008
    output: Annotated[TrackOutput, tyro.conf.arg(name="output")] = TrackOutput(),  # noqa: B008
    live: Annotated[LiveOptions, tyro.conf.arg(name="live")] = LiveOptions(),
) -> int:
    """The poses of a camera that moves, against one photo or in a map, metric by the device's own motion.

    Args:
        target: A reference photo; or a map: folder of a COLMAP model (with --images), or a bundle.
        source: A folder of photos or a known data set, a video (extra video), a ROS 1 or 2 bag (extra ros), a dump of Stray
            Scanner or Record3D, or - for JPEGs one after another on standard input.
        camera: What is known of the camera of the stream; it wins over what the stream says.
        about: What is known of the reference photo, or of the map.
        device: Where the device says that its camera stood.
        bag: Which topics of a bag are used.
        how: How poses are found.
        output: Which frames are looked at, and what is written.
        live: What is seen while it is found.
    """
    output.check()
    live.check()
    how.check()
    with hearing_sigterm():
        stream = open_stream(source, device.stream(camera, bag, output.fps))
        tracker, method = _opened(target, camera, about, how)
        settings = {key: value for part in (camera, about, device, bag, how) for key, value in asdict(part).items()}
        settings |= {"every": output.every, "fps": output.fps, "realtime": output.realtime}
        run = TrackRun(
            str(target), stream.name, method.name, method.weights_id, settings, tracker.reference, tracker.unit
        )
        with live.opened(f"{target} and {source}") as view:
            _follow(run, tracker, stream, output, view)
    if not run.counts["all"]:
        raise InputError(f"{stream.name} held no frame")
    return 0 if run.counts["with a pose"] else EXIT_NO_POSE


def _follow(run: TrackRun, tracker: Tracker, stream: Stream, output: TrackOutput, view: LiveView | None) -> None:
    """To the end of the stream, told and shown frame after frame."""
    folder = None if output.out is None else TrackFolder.prepare(output.out, output.formats, output.photos)
    content = None if tracker.localizer is None else tracker.localizer.scene
    show = shown_frames(view, tracker.reference, content, tracker.unit)

    def told(frame: TrackedFrame) -> None:
        _say(frame, stream.count, output.json)
        show(frame)

    chosen: dict[str, Any] = {"every": output.every, "pace": Pace() if output.realtime else None}
    try:
        run_track(run, tracker, stream, folder=folder, resume=output.resume, told=told, **chosen)
    finally:
        _close(run, folder, output.json)


def _opened(target: Path, camera: CameraOptions, about: TargetOptions, how: TrackSettings) -> tuple[Tracker, Any]:
    """The tracker, and the method that it goes by."""
    if is_map(target):
        about.check_map(target)
        how.check_map(target)
        tracker = Tracker(target, images=about.images, method=how.for_map(), seed=how.seed, device=how.device)
        assert tracker.localizer is not None
        return tracker, tracker.localizer.method
    view, method = about.load(target, camera), how.for_photo()
    return Tracker(view, method=method, frames=how.frames or FRAMES, seed=how.seed), method


def _say(frame: TrackedFrame, count: int | None, as_json: bool) -> None:
    """One frame, as soon as it is known."""
    if "error" in frame.entry:
        complain("track", frame.entry["error"])
    if as_json:
        print(json.dumps(frame.entry, allow_nan=False), flush=True)
    else:
        print_lines([frame_in_words(frame.entry, frame.estimate, count)])
        sys.stdout.flush()


def _close(run: TrackRun, folder: TrackFolder | None, as_json: bool) -> None:
    """The last words, also after an interrupt: what was wrong, how many were found, where it is written. None where no
    frame was looked at: an error says why."""
    if not run.counts["all"]:
        return
    for sentence in run.notes.sentences():
        print(f"note: {printable(sentence)}", file=sys.stderr)
    counts = run.counts
    dropped = f", {counts['dropped']} dropped" if counts["dropped"] else ""
    share = f"{counts['with a pose']} of {counts['all']} frames have a pose"
    lost = f"{counts['unusable']} could not be used" if counts["unusable"] else "all could be read"
    out = sys.stderr if as_json else sys.stdout
    print(f"{share}; {lost}{dropped}", file=out)
    if counts["without metres"]:
        left = "; files of poses leave them out" if folder is not None else ""
        print(f"{counts['without metres']} poses have a direction only: nothing told the metres{left}", file=out)
    if folder is not None:
        print(f"written to {printable(folder.path)}", file=out)
