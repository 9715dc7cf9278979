"""What can be kept: accounts, devices, DIDs and switches, each field spelled once for every door."""
