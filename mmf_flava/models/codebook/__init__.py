"""Image codebooks: one code per patch, the targets of MIM and MMM-image (FLAVA paper, §3.2)."""
