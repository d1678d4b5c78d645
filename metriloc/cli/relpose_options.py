"""Options of ``metriloc relpose``: several references, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.options import FormatArgument, check_formats, check_resume
from metriloc.fusion import FromMany
from metriloc.geometry import Pose
from metriloc.io import InputError, prepare_output_folder, read_reference_poses
from metriloc.runs.options import MethodSettings, PhotoOptions
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.types import RelativePoseMethod


@dataclass(frozen=True)
class ReferencesOptions:
    """More than one reference."""

    references: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="REF ...")] = ()
    """Several references, the first is the origin: relpose QUERY... --references A B C, or with the one query as the last
    of them. Their poses are brought together, and one that contradicts the others is left out."""
    reference_poses: Path | None = None
    """Known poses of --references: lines 'photo qw qx qy qz tx ty tz', world to camera, metres. Files of poses are in
    their world then. Without them, they are estimated, too."""

    def sorted_out(
        self, reference: Path | None, query: tuple[Path, ...]
    ) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
        """The reference, the queries, and further references. Raises InputError where something is missing."""
        references = self.references
        if not references:
            if reference is None or not query:
                raise InputError("no query photo given: metriloc relpose REF QUERY...")
            return reference, query, ()
        asked = () if reference is None else (reference, *query)
        if not asked:  # relpose --references A B C QUERY
            references, asked = references[:-1], references[-1:]
        if len(references) < 2:
            raise InputError(
                "--references are two photos and more: metriloc relpose --references A B C QUERY; "
                "for one reference say metriloc relpose REF QUERY"
            )
        repeated = next((path for i, path in enumerate(references) if path in references[:i]), None)
        if repeated is not None:
            raise InputError(f"--references names '{repeated}' twice: each reference has one say")
        return references[0], asked, references[1:]

    def check(self, count: int, photos: PhotoOptions, how: MethodSettings) -> None:
        """Raises InputError for what is of one reference, or of several. count: how many there are."""
        if count == 1 and self.reference_poses is not None:
            raise InputError(f"--reference-poses {self.reference_poses} are of --references: give these")
        if count > 1 and photos.depth is not None:
            raise InputError(f"--depth {photos.depth} is of one reference, and --references are {count}")
        if count > 1 and how.distance is not None:
            raise InputError(f"--distance {how.distance:g} is from one reference, and --references are {count}")

    def asking_all(
        self, method: RelativePoseMethod, photos: PhotoOptions, references: Sequence[Path]
    ) -> tuple[RelativePoseMethod, Pose | None]:
        """The method that asks all references, and the pose of the first in the world of the file, where there is one."""
        if len(references) == 1:
            return method, None
        known = None if self.reference_poses is None else read_reference_poses(self.reference_poses, references)
        views = [photos.load(path, reference=references[0]) for path in references[1:]]
        return FromMany(method, views, known), None if known is None else known[0]


@dataclass(frozen=True)
class PairOutputOptions:
    """What is written."""

    out: Path | None = None
    """Folder for pose.json, files of poses, pictures and an HTML report."""
    formats: FormatArgument = None
    """Files of poses in --out; by default tum and mapfree. docs/conventions.md says what each holds."""
    export: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """File for matches, their 3D points and depth maps; of many queries each has its own, numbered."""
    resume: bool = False
    """Keep the queries that an earlier run with the same photos and settings left in --out."""
    json: bool = False
    """Print the result as JSON on standard output."""

    def check(self) -> None:
        """Raises InputError for options that contradict."""
        check_formats(self.formats, self.out)
        check_resume(self.resume, self.out)

    def prepared(self, single: bool) -> RelposeFolder | None:
        """The folder of the run, and that of the export, made where they are wanted."""
        if self.export is not None:
            prepare_output_folder(self.export.parent)
        return None if self.out is None else RelposeFolder.prepare(self.out, single=single, formats=self.formats)
