"""One proof per term: named after the trap, on the whole platform, red when the term's guard is taken away."""
