"""The list of packages, which pyproject.toml cannot compute; everything else is there.

The folder app/ is installed as lm_studio: a package named app would collide with any app.py.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["lm", "lm.*"]),
        *("lm_studio", *(f"lm_studio.{name}" for name in find_packages("app"))),
    ],
    package_dir={"lm_studio": "app"},
)
