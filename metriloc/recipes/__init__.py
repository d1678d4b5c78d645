"""Complete runs, as functions that return a ``metriloc.training.Run``; ``metriloc train NAME`` runs one.

A recipe is a public function listed in ``__all__``; its name says what it reproduces, its first line what it is.
"""

from metriloc.recipes.toy import toy

__all__ = ["toy"]
