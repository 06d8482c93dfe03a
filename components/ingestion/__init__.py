"""Ingestion: from a source's raw files to clean tables, split by time."""
