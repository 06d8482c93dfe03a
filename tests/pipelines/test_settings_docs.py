"""Every setting is described in its class's docstring, and its values are checked by type."""

import inspect
import re
from typing import get_args

import pytest
from pydantic import BaseModel

from pipelines.cluster.settings import ClusterSettings
from pipelines.demo.settings import DemoSettings
from pipelines.settings import RunSettings
from refit.setting_values import branches, is_known
from serving.settings import ServeSettings
from simulation.settings import SimulationSettings

ROOTS = (RunSettings, ClusterSettings, DemoSettings, ServeSettings, SimulationSettings)
ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): \S", re.MULTILINE)


def classes_in(kind):
    for branch in branches(kind):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            yield branch
            for field in branch.model_fields.values():
                yield from classes_in(field.annotation)
        else:
            for argument in get_args(branch):
                yield from classes_in(argument)


CLASSES = sorted(
    {found for root in ROOTS for found in classes_in(root)}, key=lambda found: found.__name__
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_setting_is_described(cls):
    _, _, text = inspect.getdoc(cls).partition("\nAttributes:\n")
    described = {name for names in ATTRIBUTE.findall(text) for name in names.split(", ")}
    assert described >= set(cls.model_fields)
    # A docstring may also describe attributes that are no settings.
    assert all(hasattr(cls, name) for name in described - set(cls.model_fields))


@pytest.mark.parametrize("root", ROOTS, ids=lambda cls: cls.__name__)
def test_every_setting_is_of_a_type_whose_values_are_checked(root):
    assert is_known(root)


def test_all_classes_are_found():
    names = {cls.__name__ for cls in CLASSES}
    assert {"SliceFloor", "RejectedShares", "KeyedSource", "MeasureSettings"} <= names
    assert len(names) > 25
