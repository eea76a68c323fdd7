"""One plan per host, and who makes its parts. Pure: no files, no network."""
