"""What the world knows, by well-kept libraries: public holidays, and the numbering plans of all countries."""
