"""A replica is killed, again and again, while rows, deletes, poison and schema changes come in.

At the end an oracle that shares no code with it says what each table has to hold (oracle.py).
``python -m tests.crash --cycles 200`` is the long form; test_crash.py runs a short one.
"""
