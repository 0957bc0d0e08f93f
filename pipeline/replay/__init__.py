"""Replay: a table of a store made anew out of the log, beside the old one or in its place."""
