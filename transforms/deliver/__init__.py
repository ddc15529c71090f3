"""Delivery: requests to vendors, paced, retried and read for what became of each item."""
