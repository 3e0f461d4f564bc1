"""Readers of files: each turns a path into arrays by name, and executes nothing that is in the file."""
