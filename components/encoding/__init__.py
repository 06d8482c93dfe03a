"""The encoding step: vectors of the items' texts and pictures, by encoders that are not trained."""
