"""A small local Hugging Face Hub for its real clients, `datasets` and `huggingface_hub`.

The folder root/datasets/org/name or root/models/org/name is a repository, a folder name@v1 next to it another
revision, and a symlink to it a former name. Files may change at any time: the sha of a commit is a hash of
its files.

    with HubServer(tmp_path) as hub:
        hub.interrupt("train.parquet", after=1000)  # breaks the next download of it
        script("train.py", "--dataset", "org/name", env=hub.environment(tmp_path / "hf"), cwd=tmp_path)
        ranges = [request.range for request in hub.requests if request.path.endswith("train.parquet")]

As on the real Hub, LARGE files redirect to another host, the CDN, which is `localhost` here. Uploads
(create_repo, create_branch, upload_folder) require a token and keep the previous commit as name@sha; a pull
request is the revision refs/pr/1, the folder name@refs%2Fpr%2F1. Only pull requests can change the models of
"other".
"""
