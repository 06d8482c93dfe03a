"""The Open Inference Protocol v2: a request and its answer as tensors, the same for REST and gRPC.

The recommender has one input, ``request``, and one output, ``answer``: BYTES tensors of shape [n],
whose elements are JSON texts of a request and of its answer, as ``POST /recommend`` takes and gives
them. The version of the model is the id of the bundle in service.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from serving.request import RequestError

INPUT, OUTPUT, DATATYPE = "request", "answer", "BYTES"
MAX_BATCH = 64
PLATFORM = "refit"
Parameters = dict[str, bool | int | float | str]
Dimensions = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class InputTensor(_Part):
    """An input: JSON texts of requests."""

    name: str
    shape: Dimensions
    datatype: str
    data: Annotated[list[str], Field(max_length=MAX_BATCH)]
    parameters: Parameters = {}


class WantedOutput(_Part):
    """An output that the client wants."""

    name: str
    parameters: Parameters = {}


class InferenceRequest(_Part):
    """An inference request of the Open Inference Protocol."""

    inputs: Annotated[list[InputTensor], Field(max_length=8)]
    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: Parameters = {}
    outputs: Annotated[list[WantedOutput], Field(max_length=8)] | None = None


class OutputTensor(_Part):
    """An output: JSON texts of answers."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str]


class InferenceResponse(_Part):
    """An inference response of the Open Inference Protocol."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(_Part):
    """Name, type and shape of a tensor; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Part):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(_Part):
    """What this server is."""

    name: str
    version: str
    extensions: list[str] = []


def describe_model(name: str, bundle_id: str) -> ModelMetadata:
    """The metadata of the recommender."""
    return ModelMetadata(
        name=name,
        versions=[bundle_id],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=INPUT, datatype=DATATYPE, shape=[-1])],
        outputs=[TensorMetadata(name=OUTPUT, datatype=DATATYPE, shape=[-1])],
    )


def parse_inference(body: Any) -> InferenceRequest:
    """Read an inference request from parsed JSON.

    Raises:
        RequestError: It is not one; the message has the first fault.
    """
    try:
        return InferenceRequest.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:64] for part in fault["loc"]) or "request"
        raise RequestError(f"{where}: {fault['msg']}") from None


def requests_of(inference: InferenceRequest) -> list[Any]:
    """The requests in an inference request, as parsed JSON.

    Raises:
        RequestError: Names, types or shapes are not those of the recommender.
    """
    tensor = _only_input(inference)
    check_tensor(tensor.name, tensor.datatype, tensor.shape, len(tensor.data))
    check_outputs([one.name for one in inference.outputs or ()])
    return [parse_json(text) for text in tensor.data]


def _only_input(inference: InferenceRequest) -> InputTensor:
    if len(inference.inputs) != 1:
        raise RequestError(f"inputs: give the one input {INPUT!r}, got {len(inference.inputs)}")
    return inference.inputs[0]


def check_tensor(name: str, datatype: str, shape: list[int], size: int) -> None:
    """Check an input against the one that the recommender has.

    Raises:
        RequestError: It is another one.
    """
    if (name, datatype) != (INPUT, DATATYPE):
        raise RequestError(f"inputs: expected {INPUT} of type {DATATYPE}, got {name} of {datatype}")
    if not 1 <= size <= MAX_BATCH:
        raise RequestError(f"inputs.{INPUT}: 1 to {MAX_BATCH} requests fit, got {size}")
    if shape not in ([size], [size, 1]):
        raise RequestError(f"inputs.{INPUT}: shape {shape} does not fit {size} elements")


def check_outputs(names: list[str]) -> None:
    """Check the names of the outputs that a client wants.

    Raises:
        RequestError: The recommender does not have one of them.
    """
    if set(names) - {OUTPUT}:
        raise RequestError(f"outputs: the only output is {OUTPUT}")


def parse_json(text: str | bytes | bytearray) -> Any:
    """Parse JSON.

    Raises:
        RequestError: The text is not JSON, or is nested too deeply.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        pass  # the standard library takes three times as long, and reads more: UTF-16, for example
    try:
        return json.loads(text)
    except ValueError as error:  # also of text that is not UTF-8, and of numbers that are too long
        raise RequestError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise RequestError("the request is nested too deeply") from None
