"""The named faults, one module each; see ``monitoring.faults``."""
