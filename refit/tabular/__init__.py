"""Tables as people export them: find their files, read them, and cast their columns."""
