"""Numbers for reading: lengths and intervals as every text of metriloc has them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath


def metres(length: float) -> str:
    """A length for reading: 3.2 cm, 1.42 m, 27.3 m."""
    if length < 0.1:
        return f"{100 * length:.1f} cm"
    return f"{length:.2f} m" if length < 10 else f"{length:.1f} m"


def interval(low_high: tuple[float, float] | None) -> str:
    """The interval of a distance in brackets, a blank before it.

    Nothing where there is none, or it is a point.
    """
    if low_high is None:
        return ""
    low, high = (metres(end) for end in low_high)
    return "" if low == high else f" (nine times in ten {low} to {high})"


def finite_or_none(value: float) -> float | None:
    """For JSON, in which NaN and infinity have no place."""
    return value if math.isfinite(value) else None


def short_names(paths: Iterable[object]) -> dict[str, str]:
    """The shortest name that tells each path apart. Path -> its file name, or where others have the same name the
    shortest tail that is its own.

    >>> short_names(["/data/a/1.jpg", "/data/b/1.jpg", "/data/b/2.jpg"])
    {'/data/a/1.jpg': 'a/1.jpg', '/data/b/1.jpg': 'b/1.jpg', '/data/b/2.jpg': '2.jpg'}
    """
    given = list(dict.fromkeys(str(path) for path in paths))
    left = {path: PurePath(path).parts for path in given}
    found: dict[str, str] = {}
    length = 1
    while left:
        tails = {path: parts[-length:] for path, parts in left.items()}
        counts = Counter(tails.values())
        settled = {path for path, tail in tails.items() if counts[tail] == 1 or length >= len(left[path])}
        found.update({path: str(PurePath(*tails[path])) for path in settled})
        left = {path: parts for path, parts in left.items() if path not in settled}
        length += 1
    return {path: found[path] for path in given}


def without_folders(sentence: str, paths: Iterable[object]) -> str:
    """The sentence without the folders of the paths it names. It is for a reader who gave those paths.

    >>> without_folders("/data/a/intrinsics.txt:2 (1.jpg)", ["/data/a/1.jpg"])
    'intrinsics.txt:2 (1.jpg)'
    """
    folders = {str(PurePath(str(path)).parent) for path in paths} - {".", "/"}
    for folder in sorted(folders, key=len, reverse=True):
        sentence = sentence.replace(f"{folder}/", "")
    return sentence


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Times by stage for JSON, to the microsecond."""
    return {stage: round(value, 6) for stage, value in seconds.items()}


# -- what ``repr`` of an estimate says ----------------------------------------------------------------------------------
def words_of_motion(
    center: Sequence[float], turned: float, metric: bool, source: str, low_high: tuple[float, float] | None
) -> list[str]:
    """How far and how much turned, in words. The turn is in degrees; also where the metres come from, if that is known.

    >>> words_of_motion([0.3, 0.0, 0.4], 12.0, True, "the depth map", (0.4, 0.6))
    ['0.50 m away (nine times in ten 0.40 m to 0.60 m), turned 12°', 'metres from the depth map']
    """
    if not metric:
        answer = f"towards {_axes(center, 2)} (direction only), turned {turned:.0f}°"
        return [answer, f"no metres: {source or 'nothing gives a scale'}"]
    answer = f"{metres(math.hypot(*center))} away{interval(low_high)}, turned {turned:.0f}°"
    return [answer, f"metres from {source}"] if source else [answer]


def words_of_place(center: Sequence[float], points: int, photos: int, metric: bool = False) -> list[str]:
    """Where in a map, and from what. metric: whether the map is in metres."""
    where = f"camera at {_axes(center, 3)} of the map"
    return [where, f"from {points} points and {photos} photos of the map, in {'metres' if metric else 'its units'}"]


def words_of_batch(
    found: Sequence[bool],
    reasons: Sequence[str | None],
    distances: Sequence[float],
    confidence: Sequence[float],
    sources: Sequence[str],
) -> list[str]:
    """A batch in words: how many photos have a pose. Also how far and how sure they are, and where their metres come
    from."""
    failed = sorted({str(reason) for reason, ok in zip(reasons, found, strict=True) if not ok})
    others = f" (else {', '.join(failed)})" if failed else ""
    first = f"{len(found)} in all, {sum(found)} with a pose{others}"
    if not any(found):
        return [first]
    lengths = [distance for distance, ok in zip(distances, found, strict=True) if ok]
    said = sorted({source for source in sources if source})
    last = [f"metres from {'; '.join(said)}"] if said else []
    return [first, f"distance {_span(lengths)}, confidence {_span(confidence)}", *last]


def _axes(center: Sequence[float], digits: int) -> str:
    # adding zero takes the sign from what rounds to -0
    return ", ".join(
        f"{axis} {round(value, digits) + 0.0:.{digits}f}" for axis, value in zip("xyz", center, strict=True)
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
