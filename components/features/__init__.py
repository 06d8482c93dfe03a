"""The features step: point-in-time tables that training, judgement and indexing read."""
