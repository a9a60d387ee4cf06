"""`python -m penstock_loadtest`."""

from penstock_loadtest.cli import app

if __name__ == "__main__":
    app()
