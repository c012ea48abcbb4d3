"""Rows, cells and pictures in the containers that data sets are published in."""
