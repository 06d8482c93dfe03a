"""The health page of the data: what is in the tables, and whether a model can learn from it."""
