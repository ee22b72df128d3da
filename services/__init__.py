"""Crypto Price Predictor: small streaming services that turn trades into features."""
