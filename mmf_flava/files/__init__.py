"""Files from elsewhere: downloads, and the folder in which they stay."""
