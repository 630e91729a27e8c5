"""Downloads, the download cache, checksums, atomic writes, JSON files and pickles of plain data."""
