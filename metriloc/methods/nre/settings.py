"""Settings of NRE as a localizer, and the names that the published config file has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metriloc.bounds import require_flags, require_within
from metriloc.methods.nre.initialize import InitializeConfig
from metriloc.methods.nre.refine import RefineConfig
from metriloc.methods.nre.windows import WindowConfig

PUBLISHED_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "n_iter_p3p": "initialize.num_samples",
        "top_n_p3p": "initialize.share",
        "max_fine_imsize": "fine.longest_side",
        "p3p_sigma_max": "coarse_gnc.sigmas[first]",
        "p3p_sigma_min": "coarse_gnc.sigmas[last]",
        "coarse_sigma_max": "coarse_gnc.sigmas[first]",
        "coarse_sigma_min": "coarse_gnc.sigmas[last]",
        "window_size": "windows.window",
        "fine_sigma_max": "windows.gnc.sigmas[first]",
        "fine_sigma_min": "windows.gnc.sigmas[last]",
    }
)
"""Names of the published config file (its README says coarse for p3p) -> fields; ``[first]`` and ``[last]`` are ends of a
tuple."""


@dataclass(frozen=True)
class StageConfig:
    """How one stage looks at photos."""

    longest_side: int = 800
    """Pixels; larger photos are made smaller."""
    temperature: float | None = None
    """Of the softmax over cells; none takes the features' own."""
    pool: int = 1
    """Cells averaged to one in each direction."""
    enlarge: float = 1.0
    """How much larger a photo may be made so that the scene appears at one scale; coarse cells gain by it, descriptors of
    pixels do not."""

    def __post_init__(self) -> None:
        require_within(self, longest_side=(1, 16_384), temperature=(1e-9, 1e9), pool=(1, 1000), enlarge=(1e-3, 1e3))


@dataclass(frozen=True)
class NREConfig:
    """Settings of the localizer."""

    coarse: StageConfig = StageConfig(800)
    """How the coarse stage looks at photos."""
    fine: StageConfig = StageConfig(800)
    """How the fine stage looks at photos."""
    initialize: InitializeConfig = InitializeConfig()  # noqa: RUF009 - frozen
    """P3P."""
    coarse_gnc: RefineConfig = RefineConfig()  # noqa: RUF009 - frozen
    """Refinement of the coarse stage."""
    windows: WindowConfig = WindowConfig()  # noqa: RUF009 - frozen
    """The fine stage."""
    max_points: int = 1000
    """Of a query, evenly spread when the references see more."""
    min_track: int = 2
    """Points seen by fewer images are left out."""
    skip_gnc: bool = False
    """Stop after P3P."""
    coarse_only: bool = False
    """Leave the fine stage out."""
    use_re: bool = False
    """The reprojection error instead, Eq. (11), in the coarse stage."""
    rescale: float = 1.3
    """Apparent scales that differ by more are brought together."""
    min_explained: int = 10
    """A pose must be supported by so many points."""

    def __post_init__(self) -> None:
        require_within(self, max_points=(1, 1_000_000), min_track=(0, 10_000), rescale=(1.0, 1e6))
        require_within(self, min_explained=(0, 1_000_000))
        require_flags(self, "skip_gnc", "coarse_only", "use_re")


NRE_STAGE = StageConfig(1600)
"""Of the paper's networks, coarse and fine."""
CONFIGS: dict[str, NREConfig] = {
    "xfeat": NREConfig(coarse=StageConfig(800, 0.02), fine=StageConfig(1600, 0.01, enlarge=2.0)),
    "xfeat+aliked": NREConfig(coarse=StageConfig(800, 0.02), fine=StageConfig(800, 0.005)),
    "xfeat+disk": NREConfig(coarse=StageConfig(800, 0.02), fine=StageConfig(800, 0.01)),
    "aliked": NREConfig(coarse=StageConfig(800, 0.02, pool=8), fine=StageConfig(800, 0.005)),
    "disk": NREConfig(coarse=StageConfig(800, 0.02, pool=8), fine=StageConfig(800, 0.01)),
}
"""Sizes and temperatures that suit the features; the fine temperatures were chosen on the sample pair."""
