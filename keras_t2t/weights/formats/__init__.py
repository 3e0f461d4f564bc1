"""Readers of file formats. Each turns a file into arrays by name, and executes no code in the file."""
