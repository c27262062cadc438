"""Reading measured collectives, fitting the fabric profiles on them, and checking profiles against them."""
