"""Tests of whole clusters: real processes that are killed, stopped and cut off while others write."""
