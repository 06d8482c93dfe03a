"""Choosing the settings of a training: a study of trials, each judged by its validation recall."""
