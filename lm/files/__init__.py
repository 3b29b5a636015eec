"""Safe files: atomic writes, locks, digests, and checks of files that anyone may have made."""
