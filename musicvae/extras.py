"""Packages that the base of the installation does without, and the extra that brings each."""

EXTRAS = {
    "torch": "train",
    "pyarrow": "train",
    "google_crc32c": "train",
    "matplotlib": "pictures",
    "huggingface_hub": "hub",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tensorboard": "tensorboard",
}


def missing(module: str) -> str:
    """What to say and do where a module of an extra cannot be imported."""
    package = module.partition(".")[0]
    return (
        f"{package} is not installed, which this needs. Install the extra {EXTRAS[package]} with: "
        f"pip install 'musicvae[{EXTRAS[package]}]'"
    )
