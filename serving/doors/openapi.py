"""The OpenAPI document of the HTTP door, made from the models that parse and describe requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from refit import __version__
from serving.answer import Refusal

REFERENCE = "#/components/schemas/{model}"
REFUSALS = {
    400: "The request is invalid; the error has the reason.",
    401: "No bearer token, or not one that is accepted.",
    404: "There is no such path or model.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The body is not sent as application/json.",
    429: "Too many requests wait already; try again after `Retry-After` seconds.",
    503: "The feed cannot be written; send all lines again.",
}


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    Attributes:
        takes, gives: Models of the bodies of request and answer.
        refusals: Status codes with which it may refuse.
    """

    method: str
    path: str
    summary: str
    gives: type[BaseModel] | None
    takes: type[BaseModel] | None = None
    refusals: tuple[int, ...] = ()
    parameters: tuple[str, ...] = field(default=())


def describe_api(operations: Sequence[Operation], needs_token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of some operations."""
    used: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Refusal, "serialization")]
    for one in operations:
        if one.takes:
            used.append((one.takes, "validation"))
        if one.gives:
            used.append((one.gives, "serialization"))
    names, schemas = models_json_schema(list(dict.fromkeys(used)), ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _describe(one, names)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Refit recommender", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _describe(one: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": one.summary,
        "responses": {
            "200": {"description": "OK", **_content(names.get((one.gives, "serialization")))},
            **{
                str(code): {
                    "description": REFUSALS[code],
                    **_content(names[Refusal, "serialization"]),
                }
                for code in one.refusals
            },
        },
    }
    if one.parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in one.parameters
        ]
    if one.takes:
        body = _content(names[one.takes, "validation"])
        described["requestBody"] = {"required": True, **body}
    return described


def _content(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}} if schema else {}
