"""Crypto Price Predictor: small streaming services that turn trades into features."""

import warnings

try:
    from authlib.deprecate import AuthlibDeprecationWarning
except ImportError:  # A data scientist's environment need not have what the services run on.
    pass
else:
    # quixstreams imports authlib, which complains about a choice of its own that we cannot change.
    warnings.filterwarnings("ignore", category=AuthlibDeprecationWarning)
