"""Downloads, the download cache, checksums and JSON files."""
