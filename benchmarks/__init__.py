"""Time and memory of supernets, networks, operations and decoding. One file for each verb of `nas-bench`."""
