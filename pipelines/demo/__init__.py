"""The demo: the whole loop on one machine, and a page that shows what happened."""
