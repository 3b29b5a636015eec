"""A Space of the Hugging Face Hub: the web UI for models of the Hub. README.md says how to choose them."""

import os
import shutil
import sys
from pathlib import Path

from lm_studio.command_line import main

from lm.cli.parser import run
from lm.storage.model_folder import find_model

MODELS = os.environ.get("MODELS", "").split()  # ids on the Hub; none: the model that ships with the package
FOLDER = Path("models")
HUB = ("https://huggingface.co", "https://*.huggingface.co")  # whose pages show a Space in a frame


def flags() -> list[str]:
    """The flags of `lm app` in a Space."""
    address = ["--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")]
    host = os.environ.get("SPACE_HOST")  # the name under which browsers know this Space
    names = ["--allow-host", host] if host else []
    return ["--models", str(FOLDER), *address, *names, *(f"--allow-frame={site}" for site in HUB)]


def serve() -> int:
    """Copy each model into a folder of its name, and serve the page to everyone."""
    FOLDER.mkdir(exist_ok=True)
    for model in MODELS:
        name = Path(model.partition("@")[0]).name
        shutil.copytree(find_model(model), FOLDER / name, dirs_exist_ok=True)
    return main(flags())


if __name__ == "__main__":
    sys.exit(run(serve))
