"""The method for two photos of a service, in memory in the two forms that requests ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from metriloc.choose import MethodChoice, choose_method, require_used
from metriloc.methods.matching.model import FeatureMatching
from metriloc.types import RelativePoseMethod


@dataclass(frozen=True, eq=False)
class Resident:
    """made_by: equal for methods that make the same features of a photo."""

    method: RelativePoseMethod
    made_by: str


class ResidentMethods:
    """A method by its name: as it finds its metres itself, and as it is told them by a distance or a depth map.

    Raises InputError and ImportError where it cannot be loaded.
    """

    def __init__(self, name: str, device: str, runtime: str) -> None:
        self.name, self._usual = name, MethodChoice(name, device=device, runtime=runtime)
        self._load = cache(self._loaded)
        self._load(False)

    def _loaded(self, told: bool) -> RelativePoseMethod:
        return choose_method(replace(self._usual, depth_map=told))

    def get(self, distance: float | None, depth_map: bool) -> Resident:
        """As ``metriloc relpose`` would choose it. Raises InputError for metres that the method has no use for."""
        choice = replace(self._usual, distance=distance, depth_map=depth_map)
        require_used(choice)
        told = distance is not None or depth_map
        method = self._load(told)
        if distance is not None:
            if not isinstance(method, FeatureMatching):
                method = choose_method(replace(choice, depth_map=False))  # which says why not
            else:
                method = method.knowing(distance=distance)
        return Resident(method, f"{method.name} {method.weights_id} {'told' if told else 'itself'}")
