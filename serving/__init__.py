"""What answers requests: the recommender, its Seldon adapter, and the local model server."""
