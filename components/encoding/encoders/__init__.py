"""Encoders: one module each. A file that is dropped here is an encoder under its own name."""

from refit.extensions import ExtensionKind

ENCODERS = ExtensionKind(
    name="encoder",
    group="refit.encoders",
    package=__name__,
    needs=("READS", "CODE", "find_files", "open_encoder"),
)
"""How encoders are found; what each attribute is: ``components.encoding.encoder.EncoderKind``."""
