"""The command line. A module for each group of commands; what they do is elsewhere.

Invariants
- Results go to stdout, everything else to stderr, so that output can be piped.
- Exit 0: done. 1: failed, with one line and a hint. 2: wrong use. 130: interrupted.
- Each option can also be given as ``MERGANSER_<OPTION>``.
- A module imports what it needs inside its commands: help and completion load no client and no engine.
"""
