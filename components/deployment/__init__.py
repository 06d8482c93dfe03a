"""The deployment step: makes a bundle of what passed the gate and promotes it."""
