"""Model analysis: attention maps, class evidence, feature maps, redundancy and cost."""

from keras_t2t.analysis.attention import attention_maps, attention_rollout
from keras_t2t.analysis.costs import Cost, StageCost, cost, growth, latency
from keras_t2t.analysis.evidence import class_evidence
from keras_t2t.analysis.features import feature_maps
from keras_t2t.analysis.geometry import to_pixels, token_centers
from keras_t2t.analysis.head_redundancy import Comparison, Redundancy, compare, redundancy
from keras_t2t.analysis.macs import multiply_accumulates
from keras_t2t.analysis.panels import attention_panels
from keras_t2t.analysis.plots import draw_comparison, draw_features, draw_growth, draw_overlays
from keras_t2t.analysis.published import Reconciliation, reconcile
from keras_t2t.models import feature_pyramid

__all__ = [
    "Comparison",
    "Cost",
    "Reconciliation",
    "Redundancy",
    "StageCost",
    "attention_maps",
    "attention_panels",
    "attention_rollout",
    "class_evidence",
    "compare",
    "cost",
    "draw_comparison",
    "draw_features",
    "draw_growth",
    "draw_overlays",
    "feature_maps",
    "feature_pyramid",
    "growth",
    "latency",
    "multiply_accumulates",
    "reconcile",
    "redundancy",
    "to_pixels",
    "token_centers",
]
