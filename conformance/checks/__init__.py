"""The checks, one module per subject: each says what it has seen, and what it expected and did not see."""
