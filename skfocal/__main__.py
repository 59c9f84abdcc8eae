"""``python -m skfocal`` is the command ``skfocal``."""

from skfocal.cli import main

if __name__ == "__main__":
    main()
