"""Downloads, the cache folder that holds them, and checksums."""
