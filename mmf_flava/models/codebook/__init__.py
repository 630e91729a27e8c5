"""Image codebooks: one code per patch, the targets of MIM and MMM-image (§3.2)."""
