"""``python -m killswitch`` is the command ``killswitch``."""

from killswitch.cli.main import main

if __name__ == "__main__":
    main()
