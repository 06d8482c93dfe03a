"""The nouns that Refit's rooms share; importing it loads no TensorFlow, kfp or Evidently."""

__version__ = "0.1.0"
