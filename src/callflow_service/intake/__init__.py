"""Take resources in, all or none of them, wherever they come from: staged, checked as a whole, applied."""
