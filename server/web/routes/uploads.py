"""`/upload/…`: files and masks from an editor into the input, output and temp folders."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from server.web.access import Caller
from server.web.endpoint import post
from server.web.files.names import inside, parts_of
from server.web.files.owner_folders import Kind, OwnerFolders
from server.web.files.pictures import with_alpha_of
from server.web.files.staging import StagedFile
from server.web.forms import Form, FormFile, SentFile
from server.web.problems import Refused
from server.web.routes.view import FileReference, FolderName, find_file, folder_kind
from server.web.site import Site

YES = ("true", "1")


class ImageForm(Form):
    """A file that nodes are to read."""

    image: FormFile
    type: FolderName = "input"
    subfolder: str = ""
    overwrite: Annotated[str, Field(description="`true` or `1`: in the place of a file of this name.")] = ""


class MaskForm(ImageForm):
    """A picture whose transparency is to become that of another one."""

    original_ref: Annotated[
        str, Field(description='The other picture, in JSON: `{"filename": …, "subfolder": …, "type": "output"}`.')
    ]


class StoredFile(BaseModel):
    """Where a file is now."""

    name: str
    subfolder: str
    type: str


async def upload_image(site: Site, caller: Caller, form: ImageForm) -> StoredFile:
    """Keep a file. Another one of its name stays: this one then gets a number. The same file is kept once."""
    return await asyncio.to_thread(_keep, site.folders.of(caller.owner), form, form.image.staged)


async def upload_mask(site: Site, caller: Caller, form: MaskForm) -> StoredFile:
    """Keep a picture with the transparency of the one that is sent."""
    reference = _reference(form.original_ref)
    return await asyncio.to_thread(_keep_masked, site, site.folders.of(caller.owner), form, reference)


def _reference(text: str) -> FileReference:
    try:
        reference = FileReference.model_validate_json(text)
    except ValidationError as error:
        raise Refused(400, f"original_ref has to name a picture in JSON, not {text[:80]!r}") from error
    if not reference.filename:
        raise Refused(400, "original_ref names no file; it has to hold a filename")
    return reference


def _keep_masked(site: Site, folders: OwnerFolders, form: MaskForm, reference: FileReference) -> StoredFile:
    original = find_file(folders, reference)
    data = with_alpha_of(form.image.staged.path, original, site.limits.picture_pixels)
    staged = StagedFile.new(form.image.staged.path.parent)
    try:
        staged.append(data)
        return _keep(folders, form, staged)
    finally:
        staged.discard()


def _keep(folders: OwnerFolders, form: ImageForm, staged: StagedFile) -> StoredFile:
    kind = folder_kind(form.type)
    subfolder, name = _place(form.image, form.subfolder)
    path = _target(folders, kind, subfolder, name)
    if form.overwrite in YES:
        staged.publish(path, overwrite=True)
    else:
        path = staged.publish_as_new(path)
    return StoredFile(name=path.name, subfolder=subfolder, type=kind)


def _place(file: SentFile, subfolder: str) -> tuple[str, str]:
    """Sub-folder and name. A name may bring sub-folders of its own."""
    parts = parts_of(file.name, new=True)
    if not parts:
        raise Refused(400, "the file has no name")
    return PurePosixPath(*parts_of(subfolder, new=True), *parts[:-1]).as_posix().removeprefix("."), parts[-1]


def _target(folders: OwnerFolders, kind: Kind, subfolder: str, name: str) -> Path:
    if name.startswith("."):
        raise Refused(400, f"{name!r} would be hidden; give the file another name")
    return inside(folders.write_to(kind), subfolder, name, new=True)


ROUTES = (post("/upload/image", upload_image), post("/upload/mask", upload_mask))
