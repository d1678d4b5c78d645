"""Writers of lists that the package only reads."""

from __future__ import annotations


def format_pairs(pairs: dict[str, tuple[str, ...]]) -> str:
    """The text of ``metriloc.io.lists.parse_pairs``; tabs between names where one holds blanks.

    Raises ValueError for a name that the format cannot hold (tabs, line breaks, blanks at its ends, a leading #).
    """
    names = [*pairs, *(name for references in pairs.values() for name in references)]
    for name in names:
        if not name or name != name.strip() or name.startswith("#") or any(c in name for c in "\t\r\n"):
            raise ValueError(f"{name!r} cannot stand in a list of pairs")
    between = "\t" if any(len(name.split()) > 1 for name in names) else " "
    return "".join(f"{query}{between}{reference}\n" for query, references in pairs.items() for reference in references)
