"""The deployment step: assembles a bundle and promotes it; the rollout of a bundle on a cluster."""
