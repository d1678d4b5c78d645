"""A camera that moves: streams of photos with device poses, against one reference photo or in a map."""

from metriloc.tracking.tracker import Tracker

__all__ = ["Tracker"]
