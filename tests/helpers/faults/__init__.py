"""Faults of the machine, of files, of servers and of people, put into real runs: one module for each kind of fault."""
