"""``python -m metriloc``, and ``torchrun -m metriloc``: the command line."""

from metriloc.cli.main import main

if __name__ == "__main__":
    main()
