"""The JSON API: the house, its call flows and their history, for programs and portals."""
