"""`make demo`: the whole job on one machine with nothing but Python."""
