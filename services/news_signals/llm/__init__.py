"""The parts of the LLM engine; `services/news_signals/engines/llm.py` puts them together."""
