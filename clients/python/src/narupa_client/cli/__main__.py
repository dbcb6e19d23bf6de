"""`narupa`, also as `python -m narupa_client.cli`."""

from narupa_client.cli.app import app


def main() -> None:
    """Runs the command line, and ends the process with its status."""
    app(prog_name="narupa")


if __name__ == "__main__":
    main()
