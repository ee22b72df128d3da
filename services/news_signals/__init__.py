"""The news_signals service: what each story says of each coin."""
