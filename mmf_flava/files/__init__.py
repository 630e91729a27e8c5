"""Downloads, the download cache and checksums."""
