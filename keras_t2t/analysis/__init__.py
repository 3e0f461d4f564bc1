"""Seeing inside a model."""

from keras_t2t.analysis.macs import multiply_accumulates

__all__ = ["multiply_accumulates"]
