"""The messages of the Open Inference Protocol over gRPC, compiled from ``inference.proto``."""
