"""The training step: towers, loss, training loop and export."""
