"""The news service: what is told about coins, each telling once."""
