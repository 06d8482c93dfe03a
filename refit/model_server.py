"""The command that starts a model server with TensorFlow Serving's PredictionService.

A step that needs a model server starts one as a child process, with a command from its settings,
and calls it over gRPC. It imports no server: only the default command below names a module of
``serving/``. The placeholders ``{python}``, ``{port}``, ``{name}`` and ``{path}`` of a command are
filled in. The command of an installed TensorFlow Serving is::

    tensorflow_model_server --port={port} --model_name={name} --model_base_path={path}
"""

import sys
from pathlib import Path

STAND_IN = ("{python}", "-m", "serving.model_server", "--port={port}", "--model={name}={path}")
"""Refit's stand-in for TensorFlow Serving."""


def fill_in(command: tuple[str, ...], port: int, name: str, path: Path) -> list[str]:
    """Fill in the placeholders of a model server's command.

    Args:
        command: Program and arguments, with placeholders.
        port: The gRPC port that it listens on.
        name: The model's name in requests.
        path: The model's base folder, which holds its version folders.

    Raises:
        KeyError, IndexError, ValueError: A placeholder is unknown.
    """
    values = {"python": sys.executable, "port": port, "name": name, "path": path.resolve()}
    return [part.format(**values) for part in command]
