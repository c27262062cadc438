"""Who computes which part? Each split rewrites a layer into one rank's share of it, with its collectives."""
