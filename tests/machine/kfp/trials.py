"""Small pipelines, each of which uses one feature of a backend."""

# mypy: disable-error-code="untyped-decorator"

from functools import partial
from typing import Any, cast

from kfp import dsl, kubernetes

from components.images import MAIN_IMAGE

SECRET, SECRET_KEY = "trial-secret", "PASSWORD"
CLAIM, MOUNT = "trial-claim", "/claimed"

step = partial(dsl.component, base_image=MAIN_IMAGE, install_kfp_package=False)


@step()
def write_greeting(name: str, greeting: dsl.Output[dsl.Dataset]) -> int:
    import pathlib

    pathlib.Path(greeting.path).write_text(f"hello, {name}")
    greeting.metadata["language"] = "en"
    return len(name)


@step()
def read_greeting(greeting: dsl.Input[dsl.Dataset], length: int) -> str:
    import pathlib

    text = pathlib.Path(greeting.path).read_text()
    return f"{text} ({length}, {greeting.metadata['language']})"


@step()
def fail(message: str) -> None:
    raise RuntimeError(message)


@step()
def is_long(name: str) -> bool:
    return len(name) > 16


@step()
def note(text: str) -> str:
    return text


@step()
def describe_environment(secret_key: str, mount: str) -> str:
    import os
    import pathlib

    (pathlib.Path(mount) / "written").write_text("yes")
    return f"{os.environ[secret_key]} {os.environ['PLAIN']} {os.getuid()}"


@step()
def fail_once(mount: str) -> str:
    import pathlib

    marker = pathlib.Path(mount) / "first-attempt"
    if not marker.exists():
        marker.touch()
        raise RuntimeError("the first attempt fails")
    return "the second attempt succeeds"


@dsl.pipeline
def hello(name: str = "world") -> str:
    written = write_greeting(name=name)
    read = read_greeting(greeting=written.outputs["greeting"], length=written.outputs["Output"])
    return cast(str, read.output)


@dsl.pipeline
def failing(message: str) -> None:
    note(text="before").set_caching_options(False)
    fail(message=message)


@dsl.pipeline
def branching(name: str) -> None:
    with dsl.If(is_long(name=name).output == True, name="long"):  # noqa: E712 - traced
        note(text=name)


@dsl.pipeline
def ending(text: str) -> None:
    end = note(text="the end")
    end.set_caching_options(False)
    with dsl.ExitHandler(end, name="always"):
        note(text=text)


@dsl.pipeline
def placed() -> None:
    task: Any = describe_environment(secret_key=SECRET_KEY, mount=MOUNT)
    task.set_caching_options(False)
    task.set_env_variable("PLAIN", "plain")
    task.set_cpu_request("100m").set_cpu_limit("500m")
    task.set_memory_request("64M").set_memory_limit("256M")
    kubernetes.use_secret_as_env(task, SECRET, {SECRET_KEY: SECRET_KEY})
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=MOUNT)


@dsl.pipeline
def retried() -> None:
    task: Any = fail_once(mount=MOUNT)
    task.set_caching_options(False)
    task.set_retry(2, backoff_duration="1s")
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=MOUNT)
