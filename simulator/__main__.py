"""``python -m simulator`` is ``forksim``."""

from simulator.cli import main

if __name__ == "__main__":
    main()
