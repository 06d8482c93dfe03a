"""The site and the pages at the root: they build, are complete, and load nothing from afar."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cluster.settings import ClusterSettings
from pipelines.settings import RunSettings
from tests.docs.pages import DOCS, ROOT
from tools.reference.settings import anchor_of, find_sections

ROOT_PAGES = ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG")
LINK = re.compile(r"\]\((?P<target>[^)#\s:]+)(?:#[^)\s]*)?\)")
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//", re.I)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_another_host(site: Path):
    loading = [p.name for p in site.rglob("*.html") if LOADED.search(p.read_text("utf-8"))]
    assert loading == []
    assert "fonts.g" not in "".join(p.read_text("utf-8") for p in site.rglob("*.css"))


def test_every_mark_of_a_page_was_filled(site: Path):
    left = [p.name for p in site.rglob("*.html") if "<!-- generated" in p.read_text("utf-8")]
    assert left == []


def test_the_reference_names_every_command_and_setting(site: Path):
    commands = (site / "reference" / "cli.html").read_text("utf-8")
    assert 'id="refit-bundles-rollback"' in commands
    settings = (site / "reference" / "settings.html").read_text("utf-8")
    names = [s.child(name) for s in find_sections(RunSettings) for name in s.model.model_fields]
    assert [name for name in names if f'id="{anchor_of(name)}"' not in settings] == []


def test_building_the_reference_imports_no_tensorflow():
    heavy = ("tensorflow", "kfp", "evidently", "seldon_core")
    script = (
        "import sys\nfrom tools.reference.hook import GENERATORS\n"
        "for make in GENERATORS.values(): assert make().strip()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("page", ROOT_PAGES)
def test_links_of_the_root_pages_lead_somewhere(page):
    text = (ROOT / f"{page}.md").read_text("utf-8")
    broken = [m["target"] for m in LINK.finditer(text) if not (ROOT / m["target"]).exists()]
    assert broken == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 700


def test_the_architecture_names_files_that_are_there():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = text.partition("## Where to change what")[2].partition("\n## ")[0]
    missing = []
    for row in section.splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w./-]+(?:\.py|\.yml|\.sh|/))`", row):
            path = ROOT / name if "/" in name or (ROOT / name).exists() else folder / name
            folder = path.parent
            missing += [] if path.exists() else [name]
    assert section
    assert missing == []


def test_settings_that_pages_name_exist():
    sections = [s for model in (RunSettings, ClusterSettings) for s in find_sections(model)]
    known = {s.child(name).replace("[]", "") for s in sections for name in s.model.model_fields}
    named = re.compile(rf"`((?:{'|'.join(RunSettings.model_fields)})\.[\w.]+)[`:]")
    unknown = [
        (page.name, name)
        for page in sorted(DOCS.rglob("*.md"))
        for name in named.findall(page.read_text("utf-8"))
        if name not in known and not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    ]
    assert [u for u in unknown if not (ROOT / u[1].replace(".", "/")).is_dir()] == []


def test_every_decision_is_listed():
    index = (DOCS / "decisions" / "index.md").read_text("utf-8")
    assert [p.name for p in (DOCS / "decisions").glob("0*.md") if p.name not in index] == []
