"""How to start a model server that speaks TensorFlow Serving's PredictionService.

A step that needs a model server starts one as a process of its own, with a command from its
settings, and speaks to it over gRPC. It imports no server: the default command, below, is the only
place outside ``serving/`` that names one. In a command ``{python}``, ``{port}``, ``{name}`` and
``{path}`` are filled in. TensorFlow Serving, where it is installed, takes::

    tensorflow_model_server --port={port} --model_name={name} --model_base_path={path}
"""

import sys
from pathlib import Path

STAND_IN = ("{python}", "-m", "serving.model_server", "--port={port}", "--model={name}={path}")
"""Refit's stand-in for TensorFlow Serving."""


def fill_in(command: tuple[str, ...], port: int, name: str, path: Path) -> list[str]:
    """The arguments of a process that serves a model.

    Args:
        command: With the placeholders of this module.
        port: The gRPC port that it listens on.
        name: The model's name in requests.
        path: The model's base folder, which holds its version folders.

    Raises:
        KeyError, IndexError, ValueError: A placeholder is unknown.
    """
    values = {"python": sys.executable, "port": port, "name": name, "path": path.resolve()}
    return [part.format(**values) for part in command]
