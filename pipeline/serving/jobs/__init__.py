"""Long work that an operator asks a node for: snapshots as files, digests."""
