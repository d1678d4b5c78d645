"""``--live``: what a command finds is seen in a browser while it is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from metriloc.io import InputError
from metriloc.io.arguments import require_number

if TYPE_CHECKING:
    from metriloc.opened_map import OpenedMap
    from metriloc.runs.localize_files import LocalizeFolder
    from metriloc.runs.localize_results import QueryOutcome
    from metriloc.runs.relpose_files import RelposeFolder
    from metriloc.runs.relpose_results import QueryResult, RelposeRun
    from metriloc.types import MapUnit, SfmMap, View
    from metriloc.viz.live import LiveView


class TrackedFrame(Protocol):
    """A frame that was worked on. Its line, and its photo if that could be read."""

    @property
    def entry(self) -> Mapping[str, Any]: ...

    @property
    def view(self) -> View | None: ...


@dataclass(frozen=True)
class LiveOptions:
    """Seen live in a browser (extra view)."""

    live: bool = False
    """Show what is found in 3D while it is found; Ctrl+C ends the view."""
    live_host: str = "127.0.0.1"
    """Address the view is served at; others than this machine see it where it is 0.0.0.0."""
    live_port: int | None = None
    """Port of the view; by default 8080, or the next that is free."""

    def check(self) -> None:
        """Raises InputError for options without ``--live`` and a port that is in use, ImportError without viser."""
        if self.live:
            check_place(self.live_host, self.live_port)
        elif self.live_host != "127.0.0.1" or self.live_port is not None:
            raise InputError("--live-host and --live-port are about a view: give --live too")

    @contextmanager
    def opened(self, title: str, stay: bool = True) -> Iterator[LiveView | None]:
        """The view, if it is wanted.

        After the work it stays until Ctrl+C, if it shall; after an error it ends.
        """
        if not self.live:
            yield None
            return
        with served(self.live_host, self.live_port, title) as view:
            yield view
            sys.stdout.flush()  # a program that reads it need not wait for Ctrl+C
            if stay:
                stay_open(view)


def titled(what: str, queries: int) -> str:
    """What a view of queries is called."""
    return f"{what} and {queries} {'query' if queries == 1 else 'queries'}"


def stay_open(view: LiveView) -> None:
    """The work is done; the view stays until Ctrl+C."""
    with suppress(KeyboardInterrupt):
        print("done; the view stays until Ctrl+C", file=sys.stderr, flush=True)
        view.wait()


def check_place(host: str, port: int | None) -> None:
    """Raises InputError for a port that is none or in use and for a host that is none, ImportError without viser."""
    from metriloc.viz.viser_server import free_port, require_viser

    require_viser()
    if port is not None:
        require_number("port", port, 0, 65535, whole=True)
    free_port(host, port)


@contextmanager
def served(host: str, port: int | None, title: str) -> Iterator[LiveView]:
    """A view, announced on standard error with how to reach it."""
    from metriloc.viz.live import LiveView
    from metriloc.viz.viser_server import LOOPBACK

    if host not in LOOPBACK:
        print(f"warning: whoever reaches {host} sees the photos; nothing asks for a password", file=sys.stderr)
    with LiveView(host, port, title) as view:
        print(f"seen at {view.url} until Ctrl+C", file=sys.stderr)
        if "SSH_CONNECTION" in os.environ and host in LOOPBACK:
            machine = os.environ["SSH_CONNECTION"].split()[2:3] or ["MACHINE"]
            tunnel = f"ssh -L {view.port}:127.0.0.1:{view.port} {machine[0]}"
            print(f"from your own machine: {tunnel}, then open {view.url} there", file=sys.stderr)
        yield view


def shown_pairs(view: LiveView | None, run: RelposeRun, folder: RelposeFolder | None) -> Callable[[QueryResult], None]:
    """What shows every result of a run in a view. Nothing without one."""
    if view is None:
        return lambda result: None
    from metriloc.runs.viewed_pairs import PairsSeen

    seen: list[PairsSeen] = []

    def show(result: QueryResult) -> None:
        # the reference of the run is known as the method saw it only now
        seen.extend([] if seen else [PairsSeen(run.reference, None if folder is None else folder.path)])
        scene = seen[0].scene if seen[0].add(result, run.truths.get(result.name)) else None
        if scene is not None:
            view.show(scene)

    return show


def shown_queries(
    view: LiveView | None, opened: OpenedMap, folder: LocalizeFolder | None
) -> Callable[[QueryOutcome], None]:
    """What shows a map in a view, and every result of a run in it; nothing without a view."""
    if view is None:
        return lambda outcome: None
    from metriloc.runs.viewed_map import LocatedSeen
    from metriloc.viz.whole_map import shown_map

    seen = LocatedSeen.of(shown_map(opened.scene, opened.unit, z_is_up=opened.z_is_up), opened.unit)
    view.show(seen.scene)

    def show(outcome: QueryOutcome) -> None:
        if seen.add(outcome, None if folder is None else folder.path):
            view.show(seen.scene)

    return show


def shown_frames(
    view: LiveView | None, reference: View | None, content: SfmMap | None, unit: MapUnit = "metre"
) -> Callable[[TrackedFrame], None]:
    """What shows a stream in a view.

    The reference photo, or the map that it is followed in, and then every frame; nothing without a
    view.
    """
    if view is None:
        return lambda frame: None
    from metriloc.runs.viewed_track import TrackPlace
    from metriloc.viz.whole_map import shown_map

    if reference is not None:
        place = TrackPlace.of_photo(reference)
    elif content is not None:
        place = TrackPlace.in_map(shown_map(content, unit))
    else:
        raise ValueError("a stream is shown around a reference photo or in a map: give one")
    view.show(place.scene)

    def show(frame: TrackedFrame) -> None:
        camera = place.frame(frame.entry, frame.view)
        if camera is not None:
            view.add_frame(camera)

    return show
