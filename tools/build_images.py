"""Build Refit's container images with docker, podman or buildah.

- ``build_images.py`` builds ``refit/main``, ``refit/serving`` and ``refit/serving-plain``, tagged
  with the package version; names of images build only those: ``build_images.py serving-plain``
- ``build_images.py main-gpu`` builds ``refit/main-gpu``, with the libraries of CUDA, which is large
  and is built only when it is named
- ``build_images.py --save DIR`` also writes each image as a docker archive for kind, minikube and
  ``ctr images import``
- arguments after ``--`` go to the builder, for example ``-- --pull-never --network host``

Timestamps are those of the commit that last changed the requirements. The same tree therefore gives
the same layers, if the builder supports it (buildah, podman, docker with BuildKit 0.13 or newer),
and a change of the code does not change the environment's layer.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTAINERFILES = {
    "main": "pipelines/Containerfile",
    "main-gpu": "pipelines/Containerfile",
    "serving": "serving/Containerfile",
    "serving-plain": "serving/Containerfile",
}
ON_REQUEST = ("main-gpu",)
"""Images that are built only when they are named."""
ARGUMENTS = {
    "main-gpu": {
        "REQUIREMENTS": "requirements-gpu.txt",
        "LICENCES": "Apache-2.0 AND LicenseRef-NVIDIA-Proprietary",
    },
    "serving-plain": {"REQUIREMENTS": "requirements-plain.txt", "LICENCES": "Apache-2.0"},
}
"""Build arguments by image, where they differ from the Containerfile's own."""
INSTALLED = (
    "requirements.txt",
    "requirements-gpu.txt",
    "serving/requirements.txt",
    "serving/requirements-plain.txt",
    "tools/uv.txt",
)
BUILDERS = ("docker", "podman", "buildah")


def main(arguments: Sequence[str]) -> int:
    """Build the images; return the exit code."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:split])
    builder = options.builder or find_builder()
    extra = list(arguments[split + 1 :])
    for name in images_to_build(options.images):
        image = image_name(name)
        started = time.monotonic()
        command = build_command(builder, name, options.base_image, extra)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": build_time(), "DOCKER_BUILDKIT": "1"}
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            raise SystemExit(f"{image} was not built; see the builder's messages above")
        size = image_size(builder, image)
        seconds = time.monotonic() - started
        sys.stdout.write(f"built {image} with {builder}: {size}, {seconds:.0f} s\n")
        if options.save:
            sys.stdout.write(f"saved {save(builder, image, options.save)}\n")
    return 0


def images_to_build(named: Sequence[str]) -> list[str]:
    """The images that are named; if none is, those that are not large."""
    return list(named) or [name for name in CONTAINERFILES if name not in ON_REQUEST]


def find_builder() -> str:
    """The first builder that is installed and works."""
    for builder in BUILDERS:
        # A docker client without an engine is common; its ``info`` fails.
        if shutil.which(builder) and _works(builder):
            return builder
    raise SystemExit(
        f"no working {', '.join(BUILDERS[:-1])} or {BUILDERS[-1]} was found; install one, for "
        "example: apt install buildah"
    )


def build_command(builder: str, name: str, base_image: str, extra: Sequence[str]) -> list[str]:
    """The command that builds one image."""
    arguments = {"VERSION": version(), "REVISION": revision(), **ARGUMENTS.get(name, {})}
    if base_image:
        arguments["BASE_IMAGE"] = base_image
    command = [builder, "build", "--file", CONTAINERFILES[name], "--tag", image_name(name)]
    if builder != "docker":
        command += ["--layers", "--timestamp", build_time()]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    return [*command, *extra, "."]


def image_name(name: str) -> str:
    """Name and tag of an image, as in the manifests."""
    return f"refit/{name}:{version()}"


def version() -> str:
    """The package's version, read without importing it."""
    module = ast.parse((ROOT / "refit" / "__init__.py").read_text(encoding="utf-8"))
    for statement in module.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__version__":
            return str(ast.literal_eval(statement.value))
    raise SystemExit("refit/__init__.py does not define __version__")


def revision() -> str:
    """The current commit, marked if the tree differs from it."""
    return _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty") or "unknown"


def build_time() -> str:
    """Time of the last change to the requirements, in seconds since 1970; 0 without a history."""
    return _git("log", "-1", "--format=%ct", "--", *INSTALLED) or "0"


def image_size(builder: str, image: str) -> str:
    """The uncompressed size of an image, as the builder formats it."""
    return _output([builder, "images", "--format", "{{.Size}}", image]).strip()


def save(builder: str, image: str, folder: Path) -> Path:
    """Write an image as a docker archive; replaces an existing one."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{image.replace('/', '-').replace(':', '-')}.tar"
    archive.unlink(missing_ok=True)
    if builder == "buildah":
        command = [builder, "push", "--quiet", image, f"docker-archive:{archive}:{image}"]
    else:
        format_option = ["--format", "docker-archive"] if builder == "podman" else []
        command = [builder, "save", *format_option, "--output", str(archive), image]
    subprocess.run(command, check=True)
    return archive


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = f"default: all but {', '.join(ON_REQUEST)}"
    parser.add_argument("images", nargs="*", choices=CONTAINERFILES, help=default)
    parser.add_argument("--builder", choices=BUILDERS, help="default: the first that works")
    parser.add_argument("--base-image", default="", help="instead of the pinned python image")
    parser.add_argument("--save", type=Path, help="also write docker archives into this folder")
    return parser


def _works(builder: str) -> bool:
    return subprocess.run([builder, "info"], capture_output=True).returncode == 0


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
