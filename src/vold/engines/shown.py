"""Pictures on their way to servers, and what replies have to say of them.

vLLM's route of ids in, ids out takes a prompt with one id in the place of each picture, and the pictures beside it.
It puts its placeholders in, and says which ids the prompt then has: they must be those of `vold.model.chat`. Which
pictures came with the request `vold.engines.seen` says; they must be those that were sent. So a picture that is
dropped, exchanged, moved or changed on its way is an error at the first reply that it has touched.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from vold.data.files.images import png_uri
from vold.engines.seen import KEY, ROUTE, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.engines.replies import VllmReply
    from vold.errors import VoldError
    from vold.run.records import JsonObject
    from vold.types import Pictures, Prompt, ScoreRequest

PLAIN = "/completions"
"""The route of prompts without pictures, below `/v1`."""
ASKED = (
    "n", "max_tokens", "temperature", "logprobs", "top_p", "top_k", "min_p", "repetition_penalty", "ignore_eos",
    "stop_token_ids", "stop", "logit_bias",
)  # fmt: skip
"""What vLLM's sampling parameters call as a request of `PLAIN` does."""


class Encoded(NamedTuple):
    """A picture as it is sent, and its digest."""

    uri: str
    digest: str


_encoded: dict[int, Encoded] = {}


def encoded(image: Image) -> Encoded:
    """A picture as PNG, which loses nothing; made once, however often it is sent while it lives."""
    found = _encoded.get(id(image))
    if found is None:
        uri = png_uri(image)
        found = _encoded[id(image)] = Encoded(uri, digest(uri))
        weakref.finalize(image, _encoded.pop, id(image), None)
    return found


def route(asked: Sequence[Prompt | ScoreRequest], error: type[VoldError]) -> str:
    """Where to send requests: `ROUTE` if any has pictures.

    Raises:
        VoldError: of class `error`: one has image tensors, and nothing that they were made from.
    """
    if any(one.vision and one.pictures is None for one in asked):
        fix = "make it with vold.model.chat.Chat.prompt"
        raise error("a prompt whose pictures are there as tensors alone cannot go to a server", fix=fix)
    return ROUTE if any(one.pictures for one in asked) else PLAIN


def digests(pictures: Pictures | None) -> list[str]:
    """Of each picture, in order."""
    return [] if pictures is None else [encoded(image).digest for image in pictures.images]


def body(ids: Sequence[int], pictures: Pictures | None, more: Sequence[int], sampling: JsonObject) -> JsonObject:
    """A request of `ROUTE`.

    Args:
        ids: of the prompt.
        pictures: the prompt's; None if it has none.
        more: ids that follow the prompt.
        sampling: vLLM's sampling parameters.
    """
    found: JsonObject = {"token_ids": [*ids, *more], "sampling_params": sampling, "return_token_ids": True}
    if pictures is not None:
        parts = [{"type": "image_url", "url": encoded(image).uri} for image in pictures.images]
        found |= {"token_ids": [*pictures.ids, *more], "content_parts": parts}
    return found


def read(reply: VllmReply, pictures: Pictures | None, *, error: type[VoldError] | None = None) -> VllmReply:
    """A reply of `ROUTE` as one of `PLAIN`, to be read and compared alike.

    Raises:
        VoldError: of class `error`, that of the client by default: it was made from other pictures than were sent, or
            does not say from which, or from which ids.
    """
    said, sent = reply.value, digests(pictures)
    seen = said.get(KEY)
    if sent and not isinstance(seen, list):
        reply.fail(
            f"the {reply.server} does not say which pictures it has seen",
            fix="start it with --enable-scale-out --middleware vold.engines.seen.Seen, as docs/engines.md says, and "
            "send requests to it, not through a gateway that rewrites replies",
            error=error,
        )
    if sent and seen != sent:
        reply.fail(
            f"the {reply.server} has seen other pictures than it was sent",
            got=_difference(seen, sent),
            fix="send requests to vLLM itself, not through a gateway that changes pictures",
            error=error,
        )
    ids = said.get("prompt_token_ids")
    if ids is None:
        reply.fail(f"the {reply.server} does not say which ids it has seen", fix="use vLLM 0.32 or newer", error=error)
    whole = {"prompt_token_ids": ids, "prompt_logprobs": said.get("prompt_logprobs")}
    choices: Any = said.get("choices")
    if isinstance(choices, list):
        choices = [
            {**c, **whole, "logprobs": _logprobs(c.get("logprobs"))} if isinstance(c, dict) else c for c in choices
        ]
    return dataclasses.replace(reply, value={**said, "choices": choices})


def _difference(seen: Any, sent: list[str]) -> str:
    if len(seen) != len(sent):
        return f"{len(seen)} pictures in place of {len(sent)}"
    if sorted(map(str, seen)) == sorted(sent):
        return f"the {len(sent)} pictures in another order"
    place = next(i for i, (a, b) in enumerate(zip(seen, sent, strict=True)) if a != b)
    return f"picture {place + 1} of {len(sent)} is another, or was changed on its way"


def _logprobs(said: Any) -> JsonObject | None:
    """As `PLAIN` writes them; None where there are none."""
    try:
        return {
            "token_logprobs": [at["logprob"] for at in said["content"]],
            "top_logprobs": [
                {f"token_id:{one['token_id']}": one["logprob"] for one in at["top_logprobs"]} for at in said["content"]
            ],
        }
    except (TypeError, KeyError):
        return None
