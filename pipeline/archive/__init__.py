"""The archive: a lossless copy of the log in an object store, and the way to read it as a log again."""
