"""The ``refit`` command."""


def main() -> None:
    """Run the command line; see ``refit --help``."""
    from pipelines.cli.app import run

    run()
