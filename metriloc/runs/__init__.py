"""Folders of results that can be stopped and resumed: relative poses, localization, benchmarks; usable from Python."""
