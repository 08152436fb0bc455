"""Tables: the results of every network of a small space, trained alike, to judge search methods without training."""
