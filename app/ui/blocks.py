"""The page's gr.Blocks: it rejects malformed event inputs and frees the memory of closed sessions."""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from lm.errors import one_line

from .errors import as_sentence, error_message
from .i18n import translate

MAX_SESSIONS = 256  # kept by Gradio for browsers that never report that the page was closed
MAX_UNREAD_SESSIONS = 1024  # sessions with results that the browser has not fetched
MAX_UNREAD_MESSAGES = 2000  # results of all sessions that the browser has not fetched
MAX_QUEUE_SIZE = 1000  # waiting events; further ones are turned away
MAX_QUEUE_BYTES = 100_000_000  # of the requests of waiting events
MAX_BODY_BYTES = 8_000_000  # of a request that is not an upload
MAX_SESSION_NAME = 64  # characters; Gradio keeps the name of a session, which the browser chooses
POLL_EVERY = 0.01  # seconds between looks into the queue; by default 0.001, which keeps an idle server busy

log = logging.getLogger(__name__)


class Page(gr.Blocks):
    """A gr.Blocks that answers malformed event inputs with a message instead of a traceback."""

    def queue(self, **settings: Any) -> gr.Blocks:
        """Gradio's queue with a size limit; Gradio calls this when it creates the Blocks."""
        page = super().queue(**{"max_size": MAX_QUEUE_SIZE, **settings})
        self._queue.sleep_when_free = POLL_EVERY
        self._limit_waiting()
        return page

    def _limit_waiting(self) -> None:
        """Let the queue turn away events whose requests would take too much memory."""
        queue, push = self._queue, self._queue.push
        sizes: dict[str, int] = {}  # event -> bytes of its request

        async def checked_push(body: Any, request: Any, username: str | None) -> Any:
            if len(body.session_hash or "") > MAX_SESSION_NAME:
                raise ValueError("the name of the session is too long")
            for ended in sizes.keys() - queue.event_ids_to_events.keys():
                del sizes[ended]
            size = int(request.headers.get("content-length", MAX_BODY_BYTES))
            success, outcome = False, "queue_full"
            event: Any = None  # its id, or why there is none
            if sum(sizes.values()) + size <= MAX_QUEUE_BYTES:
                success, event, outcome = await push(body=body, request=request, username=username)
            if success:
                sizes[str(event)] = size
            elif outcome == "queue_full":
                event = translate("The server is busy; try again in a moment.")
            return success, event, outcome

        queue.push = checked_push  # type: ignore[method-assign]

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Gradio's processing of an event; messages about its inputs are in the language of the request."""
        LocalContext.request.set(kwargs.get("request"))  # Gradio sets it after it has checked the inputs
        return await super().process_api(*args, **kwargs)

    @property
    def accepts_uploads(self) -> bool:
        """Whether the page has a component that uploads files."""
        return any(isinstance(block, (gr.UploadButton, gr.File)) for block in self.blocks.values())

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Gradio's preprocessing of event inputs, with stricter checks. Raises gr.Error."""
        try:
            unread = self._queue.pending_messages_per_session.values()
            messages = sum(queue.qsize() for queue in list(unread))
            if len(unread) > 2 * MAX_UNREAD_SESSIONS or messages > MAX_UNREAD_MESSAGES:
                self._drop_unread()
            if block_fn.fn is None:
                raise ValueError("this event runs in the browser only")
            inputs = _checked(block_fn.inputs, _encodable(inputs))
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error as error:  # a value outside a component's range
            raise error_message(as_sentence(one_line(error.message))) from error
        except Exception as error:
            log.info("rejected: event %s: %s", block_fn.api_name, describe_error(error))
            message = translate("The page sent an invalid value: reload it and try again.")
            raise error_message(message) from error

    def forget(self, session: str | None) -> None:
        """Free what Gradio keeps for a session: about half a megabyte, the last value of every component."""
        if session is None:
            return
        holder = self.state_holder
        with holder.lock:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
        self._drop_unread(session)

    def _drop_unread(self, *sessions: str) -> None:
        """Drop unread results of these sessions and of the oldest ones; Gradio would keep them forever."""
        queue = self._queue
        unread = {
            name: messages.qsize() for name, messages in list(queue.pending_messages_per_session.items())
        }
        surplus = sum(unread.values()) - MAX_UNREAD_MESSAGES // 2
        for number, (session, messages) in enumerate(unread.items()):  # the oldest first
            is_old = number < len(unread) - MAX_UNREAD_SESSIONS or (surplus > 0 and messages)
            if not (is_old or session in sessions):
                continue
            if not queue.event_ids_to_events.keys() & queue.pending_event_ids_session.get(session, set()):
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
                surplus -= messages


def describe_error(error: Exception) -> str:
    """An exception as one line of ASCII for the log."""
    return one_line(ascii(f"{type(error).__name__}: {error}"), 160)


def _checked(components: list[Any], inputs: list[Any]) -> list[Any]:
    """The inputs, with the checks that Gradio's own components lack. Raises ValueError."""
    checked = list(inputs)
    for i, (component, value) in enumerate(zip(components, inputs, strict=False)):
        if isinstance(component, (gr.Textbox, gr.Markdown)):
            if not isinstance(value, (str, type(None))):
                raise ValueError("not a text")
            checked[i] = value or ""
        elif isinstance(component, gr.Dropdown) and not component.multiselect and isinstance(value, list):
            raise ValueError("not a single choice")
    return checked


def _encodable(value: Any) -> Any:
    """`value` without lone surrogates, which JSON can hold but a response cannot. Raises ValueError for
    integers that a response cannot hold."""
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("the number is too large")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return value
