"""What a node says of itself: figures, metrics, readiness, the journal of requests."""
