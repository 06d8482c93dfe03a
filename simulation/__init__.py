"""A simulated second-hand marketplace: seeded, fast, and with a truth that tests can ask for."""
