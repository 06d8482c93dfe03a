import sys

import pytest

from refit.errors import DataValidationError, RefitError, UsageError
from refit.extensions import ExtensionKind, _offered, naming

KIND = ExtensionKind("shape", "refit.shapes", "shapes", ("AREA",))


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A built-in package, a package with an entry point, and a module of the user's own."""
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").write_text("")
    (tmp_path / "shapes" / "square.py").write_text("AREA = 4\n")
    (tmp_path / "shapes" / "line.py").write_text("LENGTH = 4\n")
    (tmp_path / "shapes" / "broken.py").write_text("AREA = area\n")
    (tmp_path / "shapes" / "_private.py").write_text("")
    (tmp_path / "acme_shapes.py").write_text("AREA = 5\nclass circle:\n    AREA = 6\n")
    installed = tmp_path / "acme-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[refit.shapes]\ncircle = acme_shapes:circle\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _offered.cache_clear()
    yield
    _offered.cache_clear()
    for name in [n for n in sys.modules if n.split(".")[0] in ("shapes", "acme_shapes")]:
        del sys.modules[name]


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("square", 4), ("circle", 6), ("acme_shapes", None), ("acme_shapes:circle", 6)],
)
def test_an_extension_is_found(name, expected):
    if expected is None:
        with pytest.raises(UsageError, match="known: broken, circle, line, square"):
            KIND.load(name)
    else:
        found = KIND.load(name)
        assert expected == found.AREA


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squar", "unknown shape 'squar': did you mean 'square'"),
        ("line", "shape 'line' lacks AREA"),
        ("acme_shapes", "the module acme_shapes has no dot in its name: .* acme_shapes:NAME"),
        ("broken", "shape 'shapes.broken' cannot be imported: NameError: name 'area'"),
        ("acme.nowhere", "shape 'acme.nowhere' cannot be imported: No module named 'acme'"),
        ("acme_shapes:oval", "cannot be imported: .* no attribute 'oval'"),
        (".", "cannot be imported"),
    ],
)
def test_an_unknown_extension_is_named(name, message):
    with pytest.raises(UsageError, match=message):
        KIND.load(name)


@pytest.mark.usefixtures("shapes")
def test_listing_names_imports_nothing():
    assert KIND.names() == ("broken", "circle", "line", "square")
    assert "shapes.square" not in sys.modules
    assert KIND.is_known("acme.shapes")
    assert not KIND.is_known("oval")


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (KeyError("sku"), RefitError, "source 'x' failed with KeyError: 'sku'; correct it"),
        (DataValidationError("no sku"), DataValidationError, "source 'x': no sku"),
        (UsageError("source 'x': no file"), UsageError, "source 'x': no file"),
    ],
)
def test_an_error_in_an_extension_names_it(raised, kind, message):
    with pytest.raises(RefitError) as caught, naming("source 'x'", "correct it"):
        raise raised
    assert (type(caught.value), str(caught.value)) == (kind, message)


def test_an_error_that_passes_is_raised_as_it_is():
    with pytest.raises(KeyError), naming("source 'x'", "", lambda error: True):
        raise KeyError("sku")
