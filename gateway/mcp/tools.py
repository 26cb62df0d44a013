"""The tools: what an assistant can do. Their docstrings and the descriptions of their arguments are what it reads."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Annotated, Any, Literal

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import AudioContent, CallToolResult, ContentBlock, TextContent
from pydantic import Field

from dgx_music.client.async_client import AsyncClient
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.client.generation_options import GenerationOptions
from dgx_music.errors import ServiceError
from gateway.mcp.preview import MEDIA_TYPE, read_preview
from gateway.mcp.tool_results import GenerationList, GenerationResult, Locate, ModelList, ModelResult

MAX_PREVIEW_SECONDS = 30.0
MAX_LISTED = 100

Id = Annotated[str, Field(description="Id of a generation, a UUID")]
WithAudio = Annotated[
    bool, Field(description=f"Also return the first {MAX_PREVIEW_SECONDS:g} s as audio, as `listen` does")
]


class MusicTools:
    """The tools of one server. A failure that was foreseen is a ToolError, whose message the assistant reads."""

    def __init__(self, client: AsyncClient, locate: Locate) -> None:
        self._client, self._locate = client, locate

    async def generate(
        self,
        context: Context,
        prompt: Annotated[
            str,
            Field(
                description="Description of the music: genre, instruments, mood, and optionally tempo and key, e.g. "
                '"lo-fi hip hop at 84 BPM in A minor with a dusty piano". No vocals.'
            ),
        ],
        duration_seconds: Annotated[
            float | None,
            Field(description="Length of the music, 0.1 to 3600 s; default: 16, or what the model can"),
        ] = None,
        model: Annotated[str | None, Field(description="Name of a model, see the tool `models`")] = None,
        seed: Annotated[int | None, Field(description="Random seed; the same seed gives the same music again")] = None,
        format: Annotated[
            Literal["wav", "flac", "mp3", "opus", "ogg", "m4a"], Field(description="Format of the file")
        ] = "wav",
        continue_from: Annotated[
            str | None, Field(description="Id of a finished generation that the music continues from")
        ] = None,
        negative_prompt: Annotated[str, Field(description="What the music is guided away from")] = "",
        melody: Annotated[
            str | None, Field(description="Id of a finished generation or a clip whose melody to follow")
        ] = None,
        loop_bars: Annotated[
            int | None,
            Field(description="Make a seamless loop of so many bars, at the tempo in the prompt; sets the length"),
        ] = None,
        with_audio: WithAudio = False,
    ) -> Annotated[CallToolResult, GenerationResult]:
        """Generate a piece of music from a description, wait until it is finished, and return its file, loudness, tempo
        and key. Takes from a second to minutes; reports its progress. The tool `models` says which model supports a
        negative prompt or a melody."""
        options = GenerationOptions(
            model=model,
            seed=seed,
            format=format,
            continue_from=continue_from,
            negative=negative_prompt,
            melody=melody,
            loop=loop_bars,
            duration=duration_seconds,
        )
        return await self._follow(context, self._client.submit(prompt, **options), with_audio=with_audio)

    async def extend(
        self,
        context: Context,
        id: Id,
        seconds: Annotated[float, Field(description="How much to add")],
        side: Annotated[
            Literal["after", "before"], Field(description="Whether to continue the piece or to lead into it")
        ] = "after",
        prompt: Annotated[str, Field(description="Description of the new part; by default that of the piece")] = "",
        with_audio: WithAudio = False,
    ) -> Annotated[CallToolResult, GenerationResult]:
        """Make a finished piece longer, wait until that is done, and return the new piece. The old one is kept."""

        async def submit() -> AsyncGeneration:
            source = await self._client.get(id)
            left, right = (seconds, None) if side == "before" else (None, seconds)
            return await source.extend(prompt, left=left, right=right)

        return await self._follow(context, submit(), with_audio=with_audio)

    async def repaint(
        self,
        context: Context,
        id: Id,
        start_seconds: Annotated[float, Field(description="Where the new part starts")],
        end_seconds: Annotated[float, Field(description="Where the new part ends")],
        prompt: Annotated[str, Field(description="Description of the new part; by default that of the piece")] = "",
        with_audio: WithAudio = False,
    ) -> Annotated[CallToolResult, GenerationResult]:
        """Replace a part of a finished piece by new music that fits what is around it, wait until that is done, and
        return the new piece. The old one is kept."""

        async def submit() -> AsyncGeneration:
            return await (await self._client.get(id)).repaint(start_seconds, end_seconds, prompt)

        return await self._follow(context, submit(), with_audio=with_audio)

    async def _follow(
        self, context: Context, submission: Coroutine[Any, Any, AsyncGeneration], *, with_audio: bool
    ) -> CallToolResult:
        """Waits until what is submitted is finished, and returns it. If the call is cancelled, so is the generation."""
        with _explained_errors():
            with anyio.CancelScope(shield=True):  # What has no id could not be cancelled.
                generation = await submission
            try:
                async with aclosing(generation.watch()) as changes:
                    await _report(context, changes)
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):
                    await _cancel(generation)
                raise
            generation.raise_if_unsuccessful()
            result = GenerationResult.of(generation, self._locate)
            content: list[ContentBlock] = [TextContent(type="text", text=result.model_dump_json(indent=2))]
            if with_audio:
                content.append(await self._preview(generation.id, MAX_PREVIEW_SECONDS))
        return CallToolResult(content=content, structured_content=result.model_dump(mode="json"))

    async def listen(
        self,
        id: Id,
        seconds: Annotated[
            float, Field(description="How much of the beginning to return", gt=0, le=MAX_PREVIEW_SECONDS)
        ] = 10.0,
    ) -> CallToolResult:
        """Listen to the beginning of a generation; returns a small mono MP3. Waits until it is finished."""
        with _explained_errors():
            await (await self._client.get(id)).wait()
            return CallToolResult(content=[await self._preview(id, seconds)])

    async def list(
        self,
        search: Annotated[str | None, Field(description="Only prompts that contain this text")] = None,
        state: Annotated[
            Literal["pending", "processing", "completed", "failed", "cancelled"] | None,
            Field(description="Only generations in this state"),
        ] = None,
        min_rating: Annotated[int | None, Field(description="Only those rated at least this", ge=1, le=5)] = None,
        limit: Annotated[int, Field(description="How many to return at most", ge=1, le=MAX_LISTED)] = 20,
    ) -> GenerationList:
        """List generations, newest first."""
        with _explained_errors():
            found = self._client.history(search=search, state=state, min_rating=min_rating, limit=limit)
            return GenerationList(generations=[GenerationResult.of(one, self._locate) async for one in found])

    async def show(self, id: Id) -> GenerationResult:
        """Show a generation: its state, file, loudness, tempo, key and seed, or why it failed."""
        with _explained_errors():
            return GenerationResult.of(await self._client.get(id), self._locate)

    async def cancel(self, id: Id) -> GenerationResult:
        """Cancel a generation that is pending or processing."""
        with _explained_errors():
            return GenerationResult.of(await self._client.cancel(id), self._locate)

    async def models(self) -> ModelList:
        """List the models that generate music."""
        with _explained_errors():
            return ModelList(models=[ModelResult.of(model) for model in await self._client.models()])

    async def _preview(self, generation_id: str, seconds: float) -> AudioContent:
        data = await read_preview(self._client, generation_id, seconds)
        return AudioContent(type="audio", data=base64.b64encode(data).decode(), mime_type=MEDIA_TYPE)


async def _report(context: Context, changes: AsyncIterator[AsyncGeneration]) -> None:
    """Reports the progress while the generation goes on. The protocol wants it to increase each time."""
    reported = -1.0
    async for generation in changes:
        if generation.progress > reported:
            reported = generation.progress
            stage = (generation.stage or generation.state).replace("_", " ")
            await context.report_progress(reported, 1.0, stage)


async def _cancel(generation: AsyncGeneration) -> None:
    with suppress(ServiceError):  # It may have finished, or the gateway is gone.
        await generation.cancel()


@contextmanager
def _explained_errors() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise ToolError(error.message) from error
