"""Taking all records of one key out of an archive and its backups, for those who must."""
