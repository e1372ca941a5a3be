"""`al`: the command line over the governance core."""
