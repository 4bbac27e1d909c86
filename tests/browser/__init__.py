"""What a person sees: the board on a whole platform, in a real Chromium."""
