"""The plain door: ``python -m serving.doors --settings JSON``."""

import argparse
import asyncio
import sys

import uvloop

from refit.errors import RefitError
from refit.progress import log_message, set_up_logging
from serving.doors.supervisor import Supervisor
from serving.settings import PlainServerSettings


async def serve(settings: PlainServerSettings) -> None:
    """Serve until a signal arrives."""
    await Supervisor(settings).run()


def main(arguments: list[str] | None = None) -> int:
    """Serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="serving.doors", description=__doc__)
    parser.add_argument("--settings", required=True, help="PlainServerSettings as JSON")
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        settings = PlainServerSettings.parse_json(options.settings)
        asyncio.run(serve(settings), loop_factory=uvloop.new_event_loop)
    except RefitError as error:
        log_message(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
