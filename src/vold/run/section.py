"""What every section of a recipe is, and how an address is written in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, ValidationInfo, field_validator

from vold.errors import ConfigError
from vold.objective.options import Options


class Section(Options):
    """Base of every recipe section: frozen, closed to unknown keys, of finite numbers and no empty path."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_path_is_empty(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes an empty path for the working directory. `~` is the home directory."""
        kinds = (annotation := cls.model_fields[str(info.field_name)].annotation), *get_args(annotation)
        if Path not in kinds or not isinstance(value, str):
            return value
        if not value.strip():
            raise ConfigError("this path is empty", got=repr(value), fix="write a path; `.` is the working directory")
        if "\0" in value:
            raise ConfigError("a path holds the character NUL", got=repr(value), fix="take it out")
        return os.path.expanduser(value)


def _address(value: str) -> str:
    import httpx  # most recipes have no server

    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError("this is no address", got=repr(value), fix=f"write http://HOST:PORT/v1 ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("this is no address of a server", got=repr(value), fix="write http://HOST:PORT/v1")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""The address of a server: http or https, and a host."""
