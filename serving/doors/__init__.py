"""The doors: how requests reach the recommender, over HTTP and gRPC."""
