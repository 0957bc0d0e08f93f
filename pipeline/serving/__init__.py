"""Serving: SQL on a replica for other processes, behind one guard."""
