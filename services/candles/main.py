"""Entry point of the candles service: `python -m services.candles.main [--env-file FILE]`."""

import sys

from services.candles.pipeline import build_pipeline
from services.candles.settings import CandlesSettings
from services.common.runner import env_file_argument, run_service

if __name__ == "__main__":
    sys.exit(run_service("candles", CandlesSettings, build_pipeline, env_file_argument()))
