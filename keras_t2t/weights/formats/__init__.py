"""Readers of file formats. Each one reads the arrays in a file by name, without executing any code in the file."""
