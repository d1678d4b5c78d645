"""Formulas written once more, plainly: what the code that runs is compared with. Nothing of the package imports them."""
