"""Options of ``metriloc eval pixloc BENCHMARK --as-published``: how queries are started, and where files are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from metriloc.datasets.visloc_files import VISLOC_FILES, VislocFiles, VislocName, VislocPart
from metriloc.evaluation.benchmarks import BenchmarkOptions, part_names
from metriloc.io import InputError


@dataclass(frozen=True)
class PublishedOptions:
    """A published run over 7scenes, cambridge, aachen, cmu or robotcar.

    Relative paths are in --data for photos and truth, else in --hloc; {scene}, {slice} and {condition} in them stand for
    the part.
    """

    as_published: bool = False
    """Run pixloc with the settings that were published for the benchmark, a folder for each part; what follows is of this."""
    from_poses: bool = False
    """Start from the poses of hloc's log, with the points it matched, and not from retrieved images."""
    inlier_ranking: bool = False
    """Order retrieved references by their inliers in hloc's log."""
    cache: Path | None = None
    """Folder for features of the references; in memory only by default."""
    eval_only: bool = False
    """Only score the results in --out (7scenes, cambridge)."""
    only_localized: bool = False
    """Leave queries without a pose out of the score, instead of counting them as lost."""
    reference_sfm: str | None = None
    """COLMAP model."""
    reference_images: str | None = None
    """Folder of its photos."""
    query_images: str | None = None
    """Folder of the queries."""
    query_list: str | None = None
    """List of queries with cameras; also a pattern with *."""
    retrieval: str | None = None
    """List of lines 'query reference', the best first."""
    global_descriptors: str | None = None
    """HDF5 file, for first poses averaged over references."""
    hloc_logs: str | None = None
    """Log of hloc's localisation, *_logs.pkl; retrieved references are then taken from it."""
    ground_truth: str | None = None
    """COLMAP model with the true poses."""
    test_list: str | None = None
    """Names of the queries with true poses."""

    def check(self, method: str, benchmark: str) -> None:
        """Raises InputError for options of published runs without one, and for what nothing was published of."""
        if not self.as_published:
            given = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
            if given:
                raise InputError(f"--{given[0].replace('_', '-')} is of published runs: give --as-published")
            return
        if method != "pixloc":
            raise InputError(f"--as-published: settings were published for pixloc, not for {method}")
        if benchmark not in VISLOC_FILES:
            raise InputError(f"--as-published: nothing was published for {benchmark}: one of {', '.join(VISLOC_FILES)}")

    def files(self, name: VislocName) -> VislocFiles:
        """Where the files of a benchmark are, by default and as given."""
        own = {f.name for f in fields(VislocFiles)} & {f.name for f in fields(self)}
        return VISLOC_FILES[name].replaced({key: getattr(self, key) for key in own})

    def parts(self, name: VislocName, part: BenchmarkOptions) -> list[VislocPart]:
        """What is run. Raises InputError for a part that the benchmark does not have."""
        files = self.files(name)
        wanted = part_names(name, part.parts) or files.parts
        hloc = part.data if part.hloc is None else part.hloc
        return [files.part(one, part.data, hloc) for one in dict.fromkeys(wanted)]
