"""Backups: what a replica holds at one position, kept beside the archive of its log."""
