"""Where a service keeps its rows and files, as its settings say."""

from __future__ import annotations

from metriloc.io import InputError, prepare_output_folder
from metriloc.service.blobs import Blobs, FolderBlobs, RemoteBlobs
from metriloc.service.config import ServiceConfig
from metriloc.service.records import Records, sqlite_url


def open_storage(config: ServiceConfig) -> tuple[Records, Blobs]:
    """Rows and files of a service, in a folder for its owner only. Raises InputError where they cannot be used."""
    if config.data.exists() and not config.data.is_dir():
        raise InputError(f"--data '{config.data}' is a file, not a folder")
    if not config.data.exists():
        prepare_output_folder(config.data)
        config.data.chmod(0o700)
    records = Records(config.database or sqlite_url(config.data / "service.db"))
    folder = FolderBlobs(config.data / "blobs")
    prepare_output_folder(folder.folder)
    if config.blobs is None:
        return records, folder
    remote = RemoteBlobs(config.blobs, folder)
    remote.check()
    return records, remote
