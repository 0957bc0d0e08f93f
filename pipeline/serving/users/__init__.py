"""Who may ask: users and their secrets, log-ins, TLS, and addresses that need them."""
