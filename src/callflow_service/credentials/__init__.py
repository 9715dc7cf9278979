"""What callers and switches show and the service keeps: passwords, API keys, and how often somebody was wrong."""
