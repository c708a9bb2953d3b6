"""Dropout methods as training components: usable by name at any site of any model, absent from what is exported.

from todm import dropout

dropout.names()
layer = dropout.create("standard", rate=0.1)
dropout.install(model, {"feed_forward": {"method": "adaptive_width", "rate": 0.1}})
"""

from todm.dropout.adaptive_width import AdaptiveDropout as AdaptiveDropout
from todm.dropout.placement import install as install
from todm.dropout.rates import Rate as Rate
from todm.dropout.rates import Rates as Rates
from todm.dropout.registry import create as create
from todm.dropout.registry import names as names
from todm.dropout.registry import register as register
from todm.dropout.regularise import after_step as after_step
from todm.dropout.regularise import nonzero as nonzero
from todm.dropout.regularise import penalty as penalty
from todm.dropout.site import Site as Site
from todm.dropout.weights import WeightMethod as WeightMethod
