"""The photos that ``metriloc localize`` is asked for: their cameras, first poses and, where it is known, the truth."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.evaluation.submission import read_visloc
from metriloc.geometry import Camera, ColmapCamera, Pose
from metriloc.io import InputError, load_view
from metriloc.io.images import require_one_size
from metriloc.io.intrinsics import camera_from_K
from metriloc.io.lists import read_queries
from metriloc.io.poses import visloc_name
from metriloc.opened_map import OpenedMap, open_map
from metriloc.types import SfmMap, View


@dataclass(frozen=True)
class QueryOptions:
    """What is known about the photos."""

    images: Path | None = None
    """Folder that the names of the map's photos are relative to."""
    queries: Path | None = None
    """List of lines 'name MODEL width height params...' (COLMAP's models); also a pattern with *."""
    query_images: Path | None = None
    """Folder that the names of --queries are relative to; --images by default."""
    k: tuple[float, float, float, float] | None = None
    """FX FY CX CY of the queries, pixels, first pixel centre at 0, after EXIF rotation."""
    k_size: tuple[int, int] | None = None
    """WIDTH HEIGHT of the photos that the numbers of --k are for; other sizes of the same aspect are scaled."""
    intrinsics: Path | None = None
    """An intrinsics.txt: lines 'image fx fy cx cy width height'."""
    fov: float | None = None
    """Horizontal field of view of the queries in degrees."""
    max_side: int | None = None
    """Longest side in pixels; larger photos are reduced, intrinsics follow."""
    init: Path | None = None
    """First poses: lines 'name qw qx qy qz tx ty tz', world to camera."""
    truth: Path | None = None
    """True poses, the same lines, for the reports."""
    held_out: bool = False
    """The queries are photos of the map: each is left out of it, with its camera from the map and its pose as truth."""


@dataclass(frozen=True, eq=False)
class QueryPhoto:
    """One photo to localise. name: how lists and results call it; camera: of the file, None where options or the photo
    tell; camera_source: where it came from; init, truth: ``cam_from_world``; image: of the map, to be left out; upright:
    whether the camera belongs to the photo as it is held, not to its pixels as they are stored; original: of the stored
    pixels, where the photo is to be an undistorted copy."""

    path: Path
    name: str
    camera: Camera | None = None
    camera_source: str = ""
    init: Pose | None = None
    truth: Pose | None = None
    image: int | None = None
    upright: bool = True
    original: ColmapCamera | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What lists may call it, the most exact first."""
        return names_of(self.name)


def names_of(name: str) -> tuple[str, ...]:
    """A name, its last folder and file, and its file alone."""
    return tuple(dict.fromkeys((name, visloc_name(name, "folder/file"), visloc_name(name, "file"))))


@dataclass(frozen=True, eq=False)
class QuerySource:
    """The map (opened at ``path``), and the photos to localise in it."""

    path: Path
    opened: OpenedMap
    queries: tuple[QueryPhoto, ...]
    options: QueryOptions

    @classmethod
    def open(cls, scene: Path, paths: Sequence[Path], options: QueryOptions) -> QuerySource:
        """Read the map and find out what is known of each query. Raises InputError for wrong use, before any work."""
        if options.queries is not None and (options.k or options.intrinsics or options.fov):
            raise InputError(f"--queries {options.queries} brings the cameras: leave out --k, --intrinsics and --fov")
        if options.held_out and (options.k or options.intrinsics or options.fov):
            raise InputError("--held-out takes the cameras from the map: leave out --k, --intrinsics and --fov")
        if options.k and (options.intrinsics or options.fov):
            raise InputError("--k says what --intrinsics or --fov say, too: give one of them")
        opened = open_map(scene, options.images)
        whole = opened.scene
        queries = cls._listed(whole, paths, options)
        if not queries and scene.suffix.lower() == ".npz":
            paths = (read_nre_sample(scene).target.path,)
        if not queries:
            queries = [QueryPhoto(path, str(path)) for path in paths]
        if not queries:
            raise InputError("no query photo given: metriloc localize MAP QUERY...")
        if scene.suffix.lower() == ".npz":
            queries = _as_in_sample(scene, queries)
        queries = _in_map(whole, queries, options)
        for kind, file in (("init", options.init), ("truth", options.truth)):
            if file is not None:
                queries = _with_poses(queries, kind, file)
        return cls(scene, opened, tuple(queries), options)

    @property
    def scene(self) -> SfmMap:
        """The map."""
        return self.opened.scene

    @staticmethod
    def _listed(whole: SfmMap, paths: Sequence[Path], options: QueryOptions) -> list[QueryPhoto]:
        """Queries of a list: all of them, or the cameras of the photos that are given."""
        if options.queries is None:
            return []
        cameras = read_queries(options.queries)
        if paths:
            return [QueryPhoto(path, *_entry(cameras, path, options.queries), str(options.queries)) for path in paths]
        folder = options.query_images or options.images or whole.folder
        if folder is None:
            raise InputError(f"--queries {options.queries} needs --query-images, the folder of its photos")
        source = str(options.queries)
        return [QueryPhoto(Path(folder) / name, name, camera, source) for name, camera in cameras.items()]

    def load(self, photo: QueryPhoto) -> View:
        """The photo with its camera. Raises InputError when it cannot be used."""
        camera, k = photo.camera, self.options.k
        if camera is None and k is not None and self.options.k_size is not None:
            camera = camera_from_K(k, self.options.k_size)
        known = camera is not None
        if not known and k is not None:
            require_one_size((self.queries[0].path, photo.path), "--k")
        view = load_view(
            photo.path,
            K=None if known else k,
            camera=camera,
            intrinsics=None if known else self.options.intrinsics,
            fov=None if known else self.options.fov,
            max_side=self.options.max_side,
            upright=photo.upright,
            undistort=photo.original,
            warn_of_guess=False,
        )
        source = view.intrinsics_source.replace("camera, as given", photo.camera_source or "camera, as given")
        return dataclasses.replace(view, name=photo.name, intrinsics_source=source)

    def scene_for(self, photo: QueryPhoto) -> SfmMap:
        """The map, without the photo if that is to be left out."""
        return self.scene if photo.image is None else self.scene.without([photo.image])


def _entry(cameras: Mapping[str, Camera], path: Path, file: Path) -> tuple[str, Camera]:
    """Name and camera of a photo: the listed name that its path ends with."""
    parts = path.as_posix()
    found = [name for name in cameras if parts == name or parts.endswith(f"/{name}")]
    if not found:
        raise InputError(f"'{file}' lists no camera for {str(path)!r}")
    name = max(found, key=len)
    return name, cameras[name]


def _as_in_sample(scene: Path, queries: Sequence[QueryPhoto]) -> list[QueryPhoto]:
    """With camera and truth of the photo that an npz file is about."""
    target = read_nre_sample(scene).target
    photo = target.path.resolve()
    return [
        dataclasses.replace(query, camera=target.camera, camera_source=str(scene), truth=target.cam_from_world)
        if query.camera is None and query.path.resolve() == photo
        else query
        for query in queries
    ]


def _in_map(whole: SfmMap, queries: Sequence[QueryPhoto], options: QueryOptions) -> list[QueryPhoto]:
    """Photos of the map itself, to be left out of it if so wished."""
    if whole.folder is None:
        if options.held_out:
            raise InputError("--held-out needs --images, the folder of the map's photos")
        return list(queries)
    places = {(whole.folder / name).resolve(): image for image, name in enumerate(whole.names)}
    found = []
    for query in queries:
        image = places.get(query.path.resolve())
        if options.held_out and image is None:
            raise InputError(_no_photo_of(whole, whole.folder, query.path))
        if options.held_out and image is not None:
            truth = whole.cam_from_world[image]
            query = dataclasses.replace(query, name=whole.names[image], truth=truth, image=image)
            if query.camera is None:
                original = whole.originals.get(whole.names[image])
                query = dataclasses.replace(
                    query, camera=whole.cameras[image], camera_source="the map", upright=False, original=original
                )
        elif image is not None:
            warnings.warn(f"{query.name} is a photo of the map; --held-out leaves it out", stacklevel=2)
        found.append(query)
    return found


def _no_photo_of(whole: SfmMap, folder: Path, path: Path) -> str:
    if str(path) in whole.names:
        return f"--held-out: {str(path)!r} is a name in the map; give the file, '{folder / path}'"
    example = f", such as '{folder / whole.names[0]}'" if whole.names else ""
    return f"--held-out: {str(path)!r} is no photo of the map (these lie in '{folder}'{example})"


def require_own_entries(queries: Sequence[QueryPhoto], listed: Collection[str], file: Path) -> None:
    """Raises InputError where two photos of one file name, in different folders, would share an entry of a list."""
    owners: dict[str, QueryPhoto] = {}
    for query in queries:
        name = next((name for name in query.names if name in listed), None)
        if name is None:
            continue
        other = owners.setdefault(name, query)
        if other.path != query.path:
            raise InputError(
                f"'{file}' lists {name!r}, which is {other.name!r} as well as {query.name!r}: list them with their folders"
            )


def _with_poses(queries: Sequence[QueryPhoto], kind: str, file: Path) -> list[QueryPhoto]:
    """With first or true poses from a file."""
    poses = read_visloc(file)
    require_own_entries(queries, poses, file)
    found = []
    for query in queries:
        pose = next((poses[name] for name in query.names if name in poses), None)
        if pose is None and kind == "init":
            raise InputError(f"'{file}' has no pose for {query.name!r}")
        found.append(
            dataclasses.replace(query, init=pose)
            if kind == "init"
            else dataclasses.replace(query, truth=pose or query.truth)
        )
    return found
