"""`python -m dwctl`: the console script, where the package is on the path but not installed (Heroku)."""

from dwctl.commands.main import main

if __name__ == "__main__":
    main()
