"""The pages a person on call reads: one per alert, and an index of all of them."""
