"""Entry point of the features service: `python -m services.features.main [--env-file FILE]`."""

import sys

from services.common.runner import env_file_argument, run_service
from services.features.pipeline import build_pipeline
from services.features.settings import FeaturesSettings

if __name__ == "__main__":
    sys.exit(run_service("features", FeaturesSettings, build_pipeline, env_file_argument()))
