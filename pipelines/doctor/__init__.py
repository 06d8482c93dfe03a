"""Checks of the setup: this machine, both environments, and what a cluster offers."""
