"""`python -m recmerge` is the `recmerge` command."""

from recmerge.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
