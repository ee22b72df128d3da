"""The trades service: exchange or recording in, topic `trades` out."""

import sys

from services.common.runner import env_file_argument, run_service
from services.trades.pipeline import build_pipeline
from services.trades.settings import TradesSettings

if __name__ == "__main__":
    sys.exit(run_service("trades", TradesSettings, build_pipeline, env_file_argument()))
