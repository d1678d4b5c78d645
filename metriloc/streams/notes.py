"""What was wrong with a stream or a file of poses and was survived: said once a kind, and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_KINDS = 100
"""Kinds of notes that are told apart; what comes after is dropped."""


@dataclass(eq=False)
class Notes:
    """Sentences by kind: the first of each is kept, the others are counted, so that memory stays steady."""

    first: dict[str, str] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, sentence: str) -> None:
        """One more of a kind."""
        if kind in self.first or len(self.first) < MAX_KINDS:
            self.first.setdefault(kind, sentence)
            self.count[kind] = self.count.get(kind, 0) + 1

    def extend(self, other: Notes) -> None:
        """All of another collection."""
        for kind, sentence in other.first.items():
            self.first.setdefault(kind, sentence)
            self.count[kind] = self.count.get(kind, 0) + other.count[kind]

    def sentences(self) -> list[str]:
        """One a kind, with how often it was so."""
        return [
            sentence if self.count[kind] == 1 else f"{sentence} (and {self.count[kind] - 1} more of this kind)"
            for kind, sentence in self.first.items()
        ]
