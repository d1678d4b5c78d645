"""The version of the installed package, as results and weights record it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("metriloc")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"
