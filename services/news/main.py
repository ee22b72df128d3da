"""The news service: feeds, an API or a file in, topic `news` out."""

import sys

from services.common.runner import env_file_argument, run_service
from services.news.pipeline import build_pipeline
from services.news.settings import NewsSettings

if __name__ == "__main__":
    sys.exit(run_service("news", NewsSettings, build_pipeline, env_file_argument()))
