"""What users do from an empty folder to an exported file, once in plain Keras and once on the command line."""
