"""The methods of a generation that make further music from it, and tell what it was made from."""

from __future__ import annotations

from typing import Self, Unpack

from dgx_music.client.connection import Connection
from dgx_music.client.generation_fields import GenerationFields
from dgx_music.client.generation_options import GenerationOptions, build_request
from dgx_music.client.option_signature import spell_out
from dgx_music.client.shaping.derived_requests import extend_left, extend_right, override, repaint, vary
from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_SEED
from dgx_music.storage.v1.storage_pb2 import (
    BatchCreateGenerationsRequest,
    CreateGenerationRequest,
    GetLineageRequest,
    LineageNode,
)
from dgx_music.storage.v1.storage_pb2 import Generation as Message


class DerivableGeneration(GenerationFields):
    """A generation of which further ones can be made. They are as this one in all that is not given for them.

    They are returned as soon as they are queued: `await (await generation.extend(right=8)).wait()`.
    """

    def __init__(self, connection: Connection, message: Message) -> None:
        self._connection, self._message = connection, message

    @property
    def message(self) -> Message:
        return self._message

    @spell_out(GenerationOptions)
    async def extend(
        self,
        prompt: str = "",
        *,
        left: float | None = None,
        right: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Self:
        """Queues this music with new music before it (`left` seconds) or after it (`right` seconds).

        Raises FailedPrecondition if it is not completed, and InvalidArgument if the model can't continue audio.
        """
        match left, right:
            case None, float() | int() as seconds:
                request = extend_right(self.message, seconds)
            case (float() | int()) as seconds, None:
                request = extend_left(self.message, seconds)
            case _:
                raise InvalidArgument("left", "give either left or right, in seconds")
        return await self._submit(request, prompt, options)

    @spell_out(GenerationOptions)
    async def repaint(self, start: float, end: float, prompt: str = "", **options: Unpack[GenerationOptions]) -> Self:
        """Queues this music with new music from `start` to `end` seconds, which fits what is before and after it.

        Raises FailedPrecondition if it is not completed, and InvalidArgument if the model can't continue audio.
        """
        return await self._submit(repaint(self.message, start, end), prompt, options)

    @spell_out(GenerationOptions)
    async def variations(self, count: int = 4, **options: Unpack[GenerationOptions]) -> list[Self]:
        """Queues this music again, at most 100 times, all or none: with random seeds, or `seed` and those after it."""
        seed = options.get("seed")
        if seed is not None and seed + count - 1 > MAX_SEED:
            raise InvalidArgument("seed", f"must be at most {MAX_SEED - count + 1} for {count} variations")
        seeds = [None if seed is None else seed + number for number in range(count)]
        requests = [_override(vary(self.message), "", GenerationOptions(**{**options, "seed": one})) for one in seeds]
        connection, batch = self._connection, BatchCreateGenerationsRequest(requests=requests)
        created = await connection.call(connection.music.BatchCreateGenerations, batch, is_repeatable=True)
        return [type(self)(connection, one) for one in created.generations]

    async def lineage(self) -> list[LineageNode]:
        """Returns this generation, what it was made from and what was made from it, directly and indirectly, oldest
        first; at most 1000."""
        response = await self._connection.call(self._connection.music.GetLineage, GetLineageRequest(id=self.id))
        return list(response.nodes)

    async def _submit(self, request: CreateGenerationRequest, prompt: str, options: GenerationOptions) -> Self:
        connection, request = self._connection, _override(request, prompt, options)
        created = await connection.call(connection.music.CreateGeneration, request, is_repeatable=True)
        return type(self)(connection, created.generation)


def _override(request: CreateGenerationRequest, prompt: str, options: GenerationOptions) -> CreateGenerationRequest:
    if "duration" in options:
        raise InvalidArgument("duration", "follows from the music that this is made from; leave it out")
    return override(request, build_request(prompt, options))
