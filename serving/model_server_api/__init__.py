"""TensorFlow Serving's gRPC messages, compiled from ``tensorflow_serving.proto``."""
