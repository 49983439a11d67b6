"""A measured causal graph as data: records, questions, files. Nothing here knows torch."""

from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy, BlockShare
from sae_graphs.graph.feature_id import OUTPUT_LAYER, FeatureId, feature_order
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import (
    Context,
    Edge,
    LayerReport,
    Node,
    OutputToken,
    RunRecord,
    Sign,
    TokenEffect,
    edge_order,
)

__all__ = [
    "OUTPUT_LAYER",
    "Anatomy",
    "BlockAnatomy",
    "BlockShare",
    "CausalGraph",
    "Context",
    "Edge",
    "FeatureId",
    "FeaturePage",
    "LayerReport",
    "LogitToken",
    "Node",
    "OutputToken",
    "RunRecord",
    "Sign",
    "TokenEffect",
    "assemble",
    "edge_order",
    "feature_order",
]
