"""What the hub and the network say when they refuse, as one sentence with the next step."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from stages._errors import StageFailed, TldrError, UserError
from stages.data.pins import Pin

AGAIN = "run the same command again to go on, finished files are kept."


@contextlib.contextmanager
def sentences(pin: Pin) -> Iterator[None]:
    """Errors of the hub become one sentence; those of the file system pass."""
    import httpx
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        raise _explain(pin, error.__cause__ or error) from error
    except HFValidationError:
        raise UserError(
            f"{pin.key}.repo = {pin.repo!r} is no name of a repository; correct {pin.declared_in}."
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _explain(pin, error) from error
    except (httpx.HTTPError, RuntimeError, ValueError) as error:  # ValueError: an answer that is not the hub's
        if os.strerror(errno.ENOSPC) in str(error):
            raise
        raise _explain(pin, error) from error


def _explain(pin: Pin, error: BaseException) -> TldrError:
    import httpx
    from huggingface_hub import constants, errors

    host = urlsplit(pin.url or constants.ENDPOINT).hostname
    status = None
    if isinstance(error, (errors.HfHubHTTPError, httpx.HTTPStatusError)):
        status = error.response.status_code
    if pin.url is not None and status in (401, 403, 404):
        return UserError(f"{pin.url} is not there (status {status}); correct {pin.key}.url in {pin.declared_in}.")
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return UserError(
            f"{pin.repo} is gated: accept its licence on its page on the hub, then give the token of that account by "
            "--token-file FILE."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{pin.repo} has no commit {pin.revision}; correct {pin.key}.revision in {pin.declared_in}.")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return UserError(f"{pin.name} has no file {pin.file}; correct {pin.key}.file in {pin.declared_in}.")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return UserError(
            f"{host} shows no repository {pin.repo}: correct {pin.key}.repo in {pin.declared_in}, or, if it is private, give a "
            "token that may read it by --token-file FILE."
        )
    about = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}" if status is None else f"status {status}"
    return StageFailed(f"{pin.name} cannot be downloaded from {host} ({about}); check the network, then {AGAIN}")
