"""`python -m keras_t2t`: the command line."""

from keras_t2t.cli import main

main()
