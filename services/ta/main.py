"""Entry point of the ta service: `python -m services.ta.main [--env-file FILE]`."""

import sys

from services.common.runner import env_file_argument, run_service
from services.ta.pipeline import build_pipeline
from services.ta.settings import TaSettings

if __name__ == "__main__":
    sys.exit(run_service("ta", TaSettings, build_pipeline, env_file_argument()))
