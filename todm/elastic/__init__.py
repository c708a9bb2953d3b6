"""Layers whose sizes are choices. Each is the torch layer of the same name that slices its shared weights."""

from todm.elastic.attention import MultiheadAttention as MultiheadAttention
from todm.elastic.conv import ElasticConv1d as ElasticConv1d
from todm.elastic.conv import ElasticConv2d as ElasticConv2d
from todm.elastic.linear import ElasticEmbedding as ElasticEmbedding
from todm.elastic.linear import ElasticLinear as ElasticLinear
from todm.elastic.norm import ElasticGroupNorm as ElasticGroupNorm
from todm.elastic.norm import ElasticLayerNorm as ElasticLayerNorm
from todm.elastic.norm import ElasticRMSNorm as ElasticRMSNorm
from todm.space import ElasticStack as ElasticStack
