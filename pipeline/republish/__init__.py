"""Republishing: a new log, made of what an archive holds."""
