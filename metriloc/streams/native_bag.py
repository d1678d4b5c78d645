"""In the process of its own: photos, cameras and transforms of a ROS 1 or ROS 2 bag, by rosbags, without ROS.

Messages are read by the definitions that come with rosbags, never by those in the bag, which it would turn into code.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metriloc.streams.native import Told

MAX_TRANSFORMS = 2_000_000
MAX_MESSAGE_BYTES = 256 * 2**20
MAX_TOPICS = 10_000
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA = "sensor_msgs/msg/CameraInfo"
POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
)
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_KNOWN = (*IMAGES, CAMERA, *POSES, *TRANSFORMS)


def run(job: Mapping[str, Any]) -> Told:
    """The transforms, then the photos of a bag.

    First a head ``edge`` [parent, child] for each pair of frames, with ``static``, ``posed`` (of a topic of poses, these
    come first) and rows of eight doubles: time, then parent from child as quaternion w x y z and position. Then
    ``ready``: the ``topic`` of photos and how many there are. Then a record a photo: ``time``, ``frame``, ``encoding``,
    ``width``, ``height``, ``step`` and its bytes, or ``bad``; ``camera`` where there is one.

    job: ``path``; ``topic`` of the photos, "" for the only one; ``device``: topic of poses, "" for transforms and the
    only one of Odometry, None for no poses.
    """
    with _opened(Path(job["path"])) as bag:
        photos = _photo_topic(bag, job)
        cameras = _cameras_of(bag, photos)
        if job["device"] is not None:
            yield from _edges(bag, job)
        yield {"ready": True, "topic": photos.topic, "count": photos.msgcount}, b""
        camera = next((found for _, _, message in bag.messages(cameras) if (found := _camera(message))), None)
        for connection, stamp, message in bag.messages([photos, *cameras]):
            if connection.msgtype == CAMERA:
                camera = _camera(message) or camera
            else:
                yield _photo(message, stamp, camera)


class _Bag:
    """A reader with the types of our own that its messages are read by."""

    def __init__(self, reader: Any, ros1: bool) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.reader, self.ros1 = reader, ros1
        self.types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
        for name in TRANSFORMS if ros1 else ():  # which ROS 1 has in packages beside its common ones
            self.types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", name))

    def __enter__(self) -> _Bag:
        self.reader.open()
        if len(self.reader.connections) > MAX_TOPICS:
            raise ValueError(f"the bag has {len(self.reader.connections)} topics; at most {MAX_TOPICS} are read")
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def of_type(self, *types: str) -> list[Any]:
        """Topics with such messages, of several connections with one topic all."""
        return [connection for connection in self.reader.connections if connection.msgtype in types]

    def messages(self, connections: Sequence[Any]) -> Any:
        """(connection, nanoseconds, message) in the order of the bag; the sentence of an error in place of a message that
        cannot be read."""
        if not connections:
            return
        for connection, stamp, raw in self.reader.messages(connections=list(connections)):
            if len(raw) > MAX_MESSAGE_BYTES:
                yield connection, stamp, f"a message of {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are read"
                continue
            read = self.types.deserialize_ros1 if self.ros1 else self.types.deserialize_cdr
            try:
                yield connection, stamp, read(raw, connection.msgtype)
            except Exception as error:  # generated code fails in many ways on bytes that are none of its message
                yield connection, stamp, f"a message cannot be read: {' '.join(str(error).split())[:100]}"


def _opened(path: Path) -> _Bag:
    if path.suffix == ".bag":
        from rosbags.rosbag1 import Reader as Reader1

        return _Bag(Reader1(path), ros1=True)
    from rosbags.rosbag2 import Reader as Reader2

    # one file of a bag is opened with its metadata
    folder = path.parent if path.is_file() and (path.parent / "metadata.yaml").is_file() else path
    return _Bag(Reader2(folder), ros1=False)


def _photo_topic(bag: _Bag, job: Mapping[str, Any]) -> Any:
    found = {c.topic: c for c in bag.of_type(*IMAGES) if not c.topic.endswith("/compressedDepth")}
    if job["topic"]:
        if job["topic"] not in found:
            raise ValueError(f"'{job['path']}' has no photos on {job['topic']!r}; it has {', '.join(found) or 'none'}")
        return found[job["topic"]]
    # of a photo that is there raw and compressed one is enough
    chosen = {topic: c for topic, c in found.items() if f"{topic}/compressed" not in found}
    chosen = {topic: c for topic, c in chosen.items() if "depth" not in topic} or chosen
    if len(chosen) != 1:
        told = "holds no photos" if not chosen else f"has photos on {', '.join(sorted(chosen))}: name one with --topic"
        raise ValueError(f"'{job['path']}' {told}")
    return next(iter(chosen.values()))


def _cameras_of(bag: _Bag, photos: Any) -> list[Any]:
    base = photos.topic.removesuffix("/compressed").rsplit("/", 1)[0]
    return [c for c in bag.of_type(CAMERA) if c.topic == f"{base}/camera_info"]


# -- transforms -------------------------------------------------------------------------------------------------------
def _edges(bag: _Bag, job: Mapping[str, Any]) -> Told:
    known = {c.topic: c for c in bag.of_type(*POSES)}
    wanted = job["device"]
    if wanted and wanted not in known and wanted not in {c.topic for c in bag.of_type(*TRANSFORMS)}:
        told = ", ".join([*known, *(c.topic for c in bag.of_type(*TRANSFORMS))]) or "none"
        raise ValueError(f"'{job['path']}' has no poses on {wanted!r}; it has {told}")
    # poses by themselves may be goals as well: only odometry is taken unasked
    odometry = [c for c in known.values() if c.msgtype == POSES[0]]
    chosen = [known[wanted]] if wanted in known else (odometry if not wanted and len(odometry) == 1 else [])
    rows: dict[tuple[bool, bool, str, str], array[float]] = {}
    count = 0
    for connection, stamp, message in bag.messages([*bag.of_type(*TRANSFORMS), *chosen]):
        posed, static = connection.msgtype in POSES, connection.topic.endswith("tf_static")
        for parent, child, row in () if isinstance(message, str) else _transforms(message, stamp):
            count += 1
            if count > MAX_TRANSFORMS:
                raise ValueError(f"'{job['path']}' has more than {MAX_TRANSFORMS} transforms")
            rows.setdefault((not posed, static, parent, child), array("d")).extend(row)
    for (others, static, parent, child), values in sorted(rows.items()):  # those of a topic of poses first: they win
        yield {"edge": [parent, child], "static": static, "posed": not others}, values.tobytes()


def _transforms(message: Any, stamp: int) -> list[tuple[str, str, list[float]]]:
    """(parent, child, row) of one message of any of the kinds; the child of a bare pose is not named."""
    if hasattr(message, "transforms"):
        return [_of_transform(one, stamp) for one in message.transforms]
    if hasattr(message, "transform"):
        return [_of_transform(message, stamp)]
    pose = message.pose
    pose = pose.pose if hasattr(pose, "pose") else pose
    row = [_seconds(message.header, stamp), *_numbers(pose.orientation, pose.position)]
    return [(_frame(message.header.frame_id), _frame(getattr(message, "child_frame_id", "")), row)]


def _of_transform(message: Any, stamp: int) -> tuple[str, str, list[float]]:
    row = [_seconds(message.header, stamp), *_numbers(message.transform.rotation, message.transform.translation)]
    return _frame(message.header.frame_id), _frame(message.child_frame_id), row


def _numbers(q: Any, t: Any) -> list[float]:
    return [float(value) for value in (q.w, q.x, q.y, q.z, t.x, t.y, t.z)]


def _frame(name: str) -> str:
    return str(name).lstrip("/")[:200]  # ROS 1 let names begin with a slash


def _seconds(header: Any, stamp: int) -> float:
    """Of a header; of the recording, where that has no time."""
    told = header.stamp
    own = int(told.sec) + 1e-9 * int(told.nanosec)
    return own if own > 0 else 1e-9 * stamp


# -- photos -----------------------------------------------------------------------------------------------------------
def _photo(message: Any, stamp: int, camera: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], bytes]:
    if isinstance(message, str):
        return {"bad": message, "time": 1e-9 * stamp}, b""
    head: dict[str, Any] = {"time": _seconds(message.header, stamp), "frame": _frame(message.header.frame_id)}
    if camera is not None:
        head["camera"] = camera
    if hasattr(message, "encoding"):
        sizes = {name: int(getattr(message, name)) for name in ("width", "height", "step")}
        head |= {"encoding": str(message.encoding)[:40], "big": bool(message.is_bigendian), **sizes}
    return head, bytes(message.data)


def _camera(message: Any) -> dict[str, Any] | None:
    """Plain numbers of a CameraInfo; None for one that is not calibrated."""
    if isinstance(message, str):
        return None
    K, D, P = (_listed(message, name) for name in "kdp")
    if not K or K[0] <= 0:
        return None
    size = {"width": int(message.width), "height": int(message.height)}
    model = str(message.distortion_model)[:40]
    return {**size, "K": K, "D": D, "P": P, "model": model, "frame": _frame(message.header.frame_id)}


def _listed(message: Any, name: str) -> list[float]:
    values = getattr(message, name, None)
    values = getattr(message, name.upper()) if values is None else values  # ROS 1
    return [float(value) for value in values[:20]]
