"""What the toolkit costs: supernets, networks, operations, decoding. One file for each verb of `nas-bench`."""
