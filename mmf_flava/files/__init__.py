"""Downloads, the download cache, checksums, atomic writes, random access, JSON files and pickles of plain data."""
