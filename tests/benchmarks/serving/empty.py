"""What the doors are compared with: a Seldon model that does nothing."""

from typing import Any

from google.protobuf import json_format
from seldon_core.proto import prediction_pb2

ANSWER = {"jsonData": {"items": []}}


class Empty:
    """Answers every request with the same few bytes; run by ``seldon-core-microservice``."""

    def predict_raw(self, message: Any) -> Any:
        if isinstance(message, prediction_pb2.SeldonMessage):
            return json_format.ParseDict(ANSWER, prediction_pb2.SeldonMessage())
        return ANSWER
