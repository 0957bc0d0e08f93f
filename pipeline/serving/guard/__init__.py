"""The guard: which queries may run, how many, for how long, and how much of an answer is kept."""
