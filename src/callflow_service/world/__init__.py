"""The world file: accounts, devices, DIDs and switches from YAML or JSON into the database."""
