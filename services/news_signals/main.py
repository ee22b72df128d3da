"""Entry point of the news_signals service: `python -m services.news_signals.main [--env-file FILE]`."""

import sys

from services.common.runner import env_file_argument, run_service
from services.news_signals.pipeline import build_pipeline
from services.news_signals.settings import NewsSignalsSettings

if __name__ == "__main__":
    sys.exit(run_service("news_signals", NewsSignalsSettings, build_pipeline, env_file_argument()))
