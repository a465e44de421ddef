"""`python -m sg3cli` is `sg3`."""

from sg3cli.cli import main

if __name__ == "__main__":
    main()
