"""Restore: from a backup and the archive after it, a store at any position."""
