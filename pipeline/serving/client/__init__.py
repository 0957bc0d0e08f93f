"""``Client``: SQL on nodes over HTTP."""
