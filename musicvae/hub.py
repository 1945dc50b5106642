"""Models that live elsewhere: owner/name on the Hugging Face hub -> a run folder on this machine.

Only the settings, the weights, the prior and the attribute vectors with their report are fetched: JSON and plain
numbers, nothing that could run. What was fetched once is kept by huggingface_hub, and is used as it is where the hub
is out of reach.
"""

import os
import queue
import re
import threading
from pathlib import Path
from typing import Any

from musicvae.extras import missing
from musicvae.model.config import CONFIG, PRIOR, WEIGHTS, load_config
from musicvae.model.vectors import ATTRIBUTES

SECONDS = 2.0  # for the hub's first answer, whatever the network does
REPORT = Path(ATTRIBUTES).with_suffix(".json").name  # of the attribute vectors
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class OutOfReach(Exception):
    """The hub does not answer; the message says why."""


def is_hub_name(name: str) -> bool:
    """Whether this could be a model on the hub: owner/name."""
    return NAME.fullmatch(name) is not None


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder with the model owner/name, fetched or brought up to date if the hub can be reached.

    HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are heeded, as huggingface_hub does. Raises ValueError, within SECONDS if
    there is no network, for what is not there, is no model of ours, or is out of reach and was not fetched before.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise ValueError(f"{name} is no folder here, and to look on the hub: {missing('huggingface_hub')}") from None
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    where: dict[str, Any] = {"revision": revision, "endpoint": endpoint}
    try:
        held = _files(hub.HfApi(endpoint), name, revision)
    except OutOfReach as error:
        return _fetched_before(hub, name, where, f"{endpoint} cannot be reached ({error})")
    except HfHubHTTPError as error:
        unknown = error.response.status_code in (401, 404)  # the hub says 401 of what it will not speak of
        why = "there is none, or it is private and you are not logged in" if unknown else _first_line(error)
        raise ValueError(f"no model {name!r} to be had from {endpoint}: {why}") from None
    if CONFIG not in held or WEIGHTS not in held:
        raise ValueError(f"{name} on {endpoint} is no model of musicvae: it lacks {CONFIG} or {WEIGHTS}")
    try:
        return _download(hub, name, held, where)
    except ValueError:
        raise
    except Exception as error:  # of the network, the disk, or the hub: each library has its own
        raise ValueError(f"{name}: cannot be fetched from {endpoint} ({_first_line(error)}). Try again") from None


def _download(hub: Any, name: str, held: set[str], where: dict[str, Any]) -> Path:
    folder = Path(hub.hf_hub_download(name, CONFIG, **where)).parent
    load_config(folder)  # before the weights, which may be those of anything
    for file in (WEIGHTS, PRIOR, ATTRIBUTES, REPORT):
        if file in held:
            hub.hf_hub_download(name, file, **where)
    return folder


def _files(api: Any, name: str, revision: str | None) -> set[str]:
    """The files of a model on the hub. Raises OutOfReach after SECONDS, even where a name server hangs."""
    from huggingface_hub.errors import HfHubHTTPError

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(api.model_info(name, revision=revision, timeout=SECONDS + 1))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS)
    except queue.Empty:
        raise OutOfReach(f"no answer within {SECONDS:g} s") from None
    if isinstance(answer, HfHubHTTPError) and answer.response.status_code < 500:
        raise answer
    if isinstance(answer, Exception):
        raise OutOfReach(_first_line(answer))
    return {file.rfilename for file in answer.siblings or []}


def _fetched_before(hub: Any, name: str, where: dict[str, Any], why: str) -> Path:
    """The folder of a model that was fetched earlier. ValueError if there is none, which says why it is wanted."""
    try:
        paths = [hub.hf_hub_download(name, file, local_files_only=True, **where) for file in (CONFIG, WEIGHTS)]
    except Exception:
        raise ValueError(f"{why}, and {name} was not fetched before. Check the network, or name a folder") from None
    return Path(paths[0]).parent


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
