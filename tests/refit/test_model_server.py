import sys

import pytest

from refit.model_server import STAND_IN, fill_in


def test_the_stand_in_runs_in_this_python(tmp_path):
    command = fill_in(STAND_IN, 8500, "query_tower", tmp_path)
    expected = ["--port=8500", f"--model=query_tower={tmp_path}"]
    assert command == [sys.executable, "-m", "serving.model_server", *expected]


def test_a_custom_command_gets_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("tensorflow_model_server", "--port={port}", "--model_base_path={path}")
    expected = ["tensorflow_model_server", "--port=1", f"--model_base_path={tmp_path / 'tower'}"]
    assert fill_in(command, 1, "query_tower", tmp_path.relative_to(tmp_path) / "tower") == expected


def test_an_unknown_placeholder_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="host"):
        fill_in(("server", "{host}"), 1, "query_tower", tmp_path)
