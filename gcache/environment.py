"""What this process finds around it: the environment, installed weights, the hub, chatty libraries.

It is the only module that reads the environment. Nothing is read when it is imported; every
function looks when it is called, so a test can change a variable and be heard.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gcache.errors import ConfigError
from gcache.runtime.processors import usable_cores

logger = logging.getLogger(__name__)

_HUB_SECONDS = 10.0
_FALSE = {"", "0", "off", "false", "no"}
_QUIET_LOCK = threading.RLock()


def cache_home() -> Path:
    """The folder for what can be made again (converted weights).

    It is ``$GCACHE_HOME``, else ``$XDG_CACHE_HOME/gcache``, else ``~/.cache/gcache``. The folder is
    not created here. An empty variable counts as unset.
    """
    own = os.environ.get("GCACHE_HOME", "").strip()
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(shared) if shared else Path("~/.cache")).expanduser() / "gcache"


def offline() -> bool:
    """Whether the user forbade downloads, by ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() not in _FALSE for name in names)


def hub_commit(repo_id: str) -> str | None:
    """The current commit of a model on the hub; None when offline or when the hub does not answer.

    One question with little patience, to be asked before a download: without a network, transformers
    would retry each of its requests for the better part of a minute.

    Raises:
        LookupError: the hub answered that it has no such model, or not for this user.
    """
    if offline():
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().model_info(repo_id, timeout=_HUB_SECONDS).sha
    except RepositoryNotFoundError as error:
        raise LookupError("the hub has no such model, or it is private") from error
    except Exception as error:  # whatever the HTTP library of the day raises
        logger.info("the hub does not answer (%s); using downloaded files only", type(error).__name__)
        return None


#: Names of an API key, in the order they are looked for.
API_KEYS = ("API_KEY", "DASHSCOPE_API_KEY", "OPENAI_API_KEY")


def api_variables(env_file: Path = Path(".env")) -> dict[str, str]:
    """What the environment, or else the file `.env`, says of an API.

    Returns the name and value of the first of `API_KEYS` that is set, and BASE_URL and API_MODEL,
    where set. A variable of the environment counts before the same one of the file, and a key of
    the environment before any of the file. Empty ones count as unset.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    return {name: value for name, (value, _) in api_sources(env_file).items()}


def api_sources(env_file: Path = Path(".env")) -> dict[str, tuple[str, str]]:
    """`api_variables` with the place of each: name -> (value, "the environment" or the name of the file).

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    from dotenv import dotenv_values

    try:
        # editors of Windows begin a file with a mark, which would become a part of the first name
        written = dotenv_values(env_file, encoding="utf-8-sig") if env_file.is_file() else {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{env_file} is not written in UTF-8; save it as UTF-8, or remove it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{env_file} cannot be read ({type(error).__name__}); mend or remove it") from error
    sources = [
        {name: (value.strip(), place) for name, value in source.items() if value and value.strip()}
        for source, place in ((os.environ, "the environment"), (written, str(env_file)))
    ]
    found: dict[str, tuple[str, str]] = {}
    for source in sources:
        keys = [name for name in API_KEYS if name in source]
        if keys and not any(name in found for name in API_KEYS):
            found[keys[0]] = source[keys[0]]
        for name in ("BASE_URL", "API_MODEL"):
            if name in source:
                found.setdefault(name, source[name])
    return found


def proxies() -> dict[str, tuple[str, str]]:
    """Proxies that the surroundings name: scheme ("http", "https", "all", "no") -> (variable, value).

    Where the environment names none, some systems have them in their settings.
    """
    found: dict[str, tuple[str, str]] = {}
    for scheme, value in urllib.request.getproxies().items():
        named = [name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name] == value]
        found[scheme] = (named[0] if named else "the system's proxy", value.strip())
    return {scheme: (name, value) for scheme, (name, value) in found.items() if value}


def certificates() -> tuple[str, str] | None:
    """The variable that names certificates to trust, and what it says; None where neither is set."""
    named = ((name, os.environ.get(name, "").strip()) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    return next(((name, value) for name, value in named if value), None)


def serve_key() -> str | None:
    """The key that clients of `gcache serve` must send: ``$GCACHE_SERVE_KEY``; None where it is empty or unset."""
    return os.environ.get("GCACHE_SERVE_KEY", "").strip() or None


#: Variables by which a user chooses the number of worker threads, and how they wait for each other.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_threads() -> int | None:
    """Where cgroups allow fewer processors than there are, torch, not yet imported, is told to use so many threads.

    Left to itself it starts one per processor that it may run on, however little of their time it gets. The number
    does not depend on what else runs, so that a run is the same, to the bit, on a busy machine.

    Returns:
        the number, or None where torch's own is right, the user chose, or torch is there already.
    """
    cores = usable_cores()
    if "torch" in sys.modules or any(os.environ.get(name) for name in THREADS) or cores == usable_cores(quota=False):
        return None
    os.environ["OMP_NUM_THREADS"] = str(cores)
    return cores


def chosen_waiting() -> str | None:
    """The variable by which the user chose how worker threads wait for each other, or None."""
    return next((name for name in WAITING if os.environ.get(name)), None)


def installed_file(package: str, ending: str) -> Path | None:
    """A file of an installed distribution whose path ends with ``ending``, or None without one.

    Only the distribution's metadata is read; its code is never imported, so its own dependencies
    need not be there.

    Args:
        package: name of the distribution, as pip knows it.
        ending: end of the file's path inside the distribution, with forward slashes.
    """
    try:
        dist = distribution(package)
    except PackageNotFoundError:
        return None
    for entry in sorted(dist.files or (), key=str):
        path = Path(str(dist.locate_file(entry)))
        if entry.as_posix().endswith(ending) and path.is_file():
            return path.resolve()
    return None


def chromium() -> Path | None:
    """A Chromium of this machine, in which the tests look at pages; None where there is none."""
    usual = Path("/usr/bin/chromium")
    found = shutil.which("chromium")
    return usual if usual.is_file() else Path(found) if found else None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers shows no bars and logs errors only; its settings return afterwards.

    Those settings belong to the whole process, so a second thread waits until the first is done.
    Bars of downloads stay: they are the hub's, and a long silence would look like a hang.
    """
    from huggingface_hub import utils as hub
    from transformers.utils import logging as chatter

    with _QUIET_LOCK:
        level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
        downloads = not hub.are_progress_bars_disabled()
        chatter.set_verbosity_error()
        if bars:
            chatter.disable_progress_bar()  # silences the hub's bars as well
            if downloads:
                hub.enable_progress_bars()
        try:
            yield
        finally:
            chatter.set_verbosity(level)
            if bars:
                chatter.enable_progress_bar()
                if not downloads:
                    hub.disable_progress_bars()
