"""Image codebooks: one code a patch, the targets of MIM and MMM-image (§3.2)."""
