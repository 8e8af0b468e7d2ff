"""WiredTiger's file system, under real WiredTiger libraries."""
