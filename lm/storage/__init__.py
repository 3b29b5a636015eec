"""The folders of models and runs: loading, saving, the model card, and the Hugging Face Hub."""
