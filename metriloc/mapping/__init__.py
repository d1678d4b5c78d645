"""What a map needs besides its points: which of its photos show what a query shows."""

from metriloc.mapping.retrieval import MapRetrieval, Ranking, RetrievalConfig

__all__ = ["MapRetrieval", "Ranking", "RetrievalConfig"]
