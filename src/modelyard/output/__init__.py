"""Text for people and for files on hosts. Pure: no files, no network."""
