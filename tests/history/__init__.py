"""What clients see, checked against the log: the bank, the history checker, and the faults that they catch.

Writers and replicas are processes, killed at random and started again; every operation is noted down with
the time at which it began and ended (journal.py). Afterwards the log is read by a plain consumer and folded
by code of our own (fold.py): that says what each read had to show, and what it had to show at least
(checker.py). ``python -m tests.history`` is the long form; the tests run short ones.
"""
