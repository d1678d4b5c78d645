"""The command line: one small file a command; ``metriloc.cli.main`` is the entry point."""
