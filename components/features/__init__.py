"""The features step: point-in-time tables for training, evaluation and indexing."""
