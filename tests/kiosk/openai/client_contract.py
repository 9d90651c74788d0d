"""What OpenAI's own client, unmodified, gets of a server: `python client_contract.py URL` runs every check, JSON out.

A program of its own, since one process imports one version of the client; `test_clients.py` runs it with two.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

BOX = {"label": "dog", "xyxy": [1.0, 2.0, 20.0, 21.0]}
MODEL = "mgcc-tiny"
TOOL: Any = {"type": "image_generation"}
_CALL = "image_generation_call"
DRAWN = {"modalities": ["image"]}


def png(width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2])))


def pixels(text: str | None) -> bytes:
    return opened(text).convert("RGB").tobytes()


def refused(code: int, word: str, call: Callable[[], Any]) -> str:
    """The sentence of an error that the client raises."""
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    error = caught.value
    assert (error.status_code, error.code) == (code, word), error.message
    return str(error.message)


def named(client: OpenAI, session: str) -> OpenAI:
    return client.with_options(default_headers={"x-session-id": session})


def shown(response: Any) -> list[str]:
    return [item.result for item in response.output if item.type == "image_generation_call"]


def check_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == MODEL and model.owned_by == "mgcc-edge" and model.object == "model"
    assert client.models.retrieve(MODEL) == model
    refused(404, "not_found", lambda: client.models.retrieve("gpt-image-2"))


def check_generation(client: OpenAI) -> None:
    found = client.images.generate(prompt="A cat.", n=2, extra_body={"seed": 3})
    assert found.data is not None and found.usage is not None and abs(found.created - time.time()) < 60
    first, second = found.data
    assert pixels(first.b64_json) != pixels(second.b64_json)
    assert opened(first.b64_json).format == "PNG" and found.size == "32x32"
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens > 0
    again = client.images.generate(prompt="A cat.", extra_body={"seed": 4})
    assert again.data is not None and pixels(again.data[0].b64_json) == pixels(second.b64_json)


def check_boxes_in_and_out(client: OpenAI) -> None:
    for boxes in ([BOX], json.dumps([BOX])):
        found = client.images.generate(prompt="A dog.", extra_body={"boxes": boxes})
        assert found.data is not None and found.data[0].model_extra is not None
        (box,) = found.data[0].model_extra["boxes"]
        assert (box["label"], box["xyxy"]) == ("dog", BOX["xyxy"])


def check_foreign_size_and_format(client: OpenAI) -> None:
    """As Open WebUI asks: a size of its own, which is drawn in ours and scaled, and reported."""
    found = client.images.generate(
        prompt="A cat.", size="256x256", output_format="webp", output_compression=70, response_format="b64_json",
        quality="high", model="gpt-image-2",
    )  # fmt: skip
    assert found.data is not None and found.size == "256x256" and found.output_format == "webp"
    image = opened(found.data[0].b64_json)
    assert image.size == (256, 256) and image.format == "WEBP"
    linked = client.images.generate(prompt="A cat.", response_format="url").data
    assert linked is not None and linked[0].url is not None and opened(linked[0].url).size == (32, 32)


def check_generation_streamed(client: OpenAI) -> None:
    events = list(client.images.generate(prompt="A cat.", stream=True, partial_images=2, size="64x64"))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, None]
    assert all(opened(event.b64_json).size == (64, 64) for event in events)
    last: Any = events[-1]
    assert last.usage.output_tokens > 0 and last.size == "64x64" and last.output_format == "png"
    whole = client.images.generate(prompt="A cat.", size="64x64").data
    assert whole is not None and pixels(whole[0].b64_json) == pixels(last.b64_json)


def check_edit(client: OpenAI) -> None:
    one = client.images.edit(image=("a.png", png()), prompt="A dog.", extra_body={"boxes": json.dumps([BOX])})
    several = client.images.edit(image=[("a.png", png()), ("b.png", png(9, 50))], prompt="A dog.", n=2)
    assert one.data is not None and several.data is not None and one.usage is not None and several.usage is not None
    assert several.usage.input_tokens_details.image_tokens == 2 * one.usage.input_tokens_details.image_tokens > 0
    assert len(several.data) == 2
    streamed = client.images.edit(image=("a.png", png()), prompt="A dog.", stream=True, partial_images=1)
    assert [event.type for event in streamed] == ["image_edit.partial_image", "image_edit.completed"]


def check_edit_refusals(client: OpenAI) -> None:
    def edit(**more: Any) -> Callable[[], Any]:
        return lambda: client.images.edit(**{"image": ("a.png", png()), "prompt": "A dog.", **more})

    assert "mask" in refused(400, "invalid_request", edit(mask=("m.png", png())))
    assert "json.dumps" in refused(400, "invalid_request", edit(extra_body={"boxes": [BOX, BOX]}))
    assert "no picture" in refused(400, "invalid_request", edit(image=("a.png", b"not a picture")))
    assert "PDF" not in refused(400, "invalid_request", edit(image=("a.pdf", b"%PDF-1.4")))


def check_refusals(client: OpenAI) -> None:
    def generate(**options: Any) -> Callable[[], Any]:
        return lambda: client.images.generate(**{"prompt": "A cat.", **options})

    refused(400, "invalid_request", generate(prompt=""))
    refused(400, "invalid_request", generate(size="0x5"))
    refused(400, "invalid_request", generate(n=11))
    refused(400, "invalid_request", generate(extra_body={"steps": 0}))
    refused(400, "invalid_request", generate(extra_body={"boxes": [{"label": "dragon", "xyxy": [0, 0, 9, 9]}]}))
    refused(400, "invalid_request", generate(extra_body={"boxes": "[{"}))
    refused(400, "invalid_request", generate(prompt="x" * 9000))


def check_chat(client: OpenAI) -> None:
    found = client.chat.completions.create(
        model=MODEL, messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "A cat."}],
        extra_body=DRAWN, seed=5,
    )  # fmt: skip
    message: Any = found.choices[0].message
    (image,) = message.images
    assert image["type"] == "image_url" and found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.prompt_tokens > 0
    alone = client.images.generate(prompt="A cat.", extra_body={"seed": 5}).data
    assert alone is not None and pixels(image["image_url"]["url"]) == pixels(alone[0].b64_json)


def check_chat_goes_on(client: OpenAI) -> None:
    """The whole history comes again: only what is new is read, and the same comes of it as where nothing was known."""
    picture = {"type": "image_url", "image_url": {"url": data_url(png())}}
    history: list[Any] = [{"role": "user", "content": "A cat."}]
    first = client.chat.completions.create(model=MODEL, messages=history, extra_body=DRAWN)
    assert first.usage is not None
    history += [{"role": "assistant", "content": first.choices[0].message.content},
                {"role": "user", "content": [{"type": "text", "text": "A dog looks at this."}, picture]}]  # fmt: skip
    known = client.chat.completions.create(model=MODEL, messages=history, extra_body=DRAWN)
    stranger = named(client, "somebody-who-was-never-here")
    unknown = stranger.chat.completions.create(model=MODEL, messages=history, extra_body=DRAWN)
    assert known.usage is not None and unknown.usage is not None
    assert 0 < known.usage.prompt_tokens < unknown.usage.prompt_tokens
    shown: list[Any] = [answer.choices[0].message for answer in (known, unknown)]
    boxes = [message.images[0]["boxes"] for message in shown]
    assert [box["label"] for box in boxes[0]] == [box["label"] for box in boxes[1]]


def check_chat_streamed(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "A cat."}], stream=True, n=2, extra_body=DRAWN,
        stream_options={"include_usage": True},
    ))  # fmt: skip
    images = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for image in (choice.delta.model_extra or {}).get("images", []):
                images[choice.index] = image["image_url"]["url"]
    assert sorted(images) == [0, 1] and pixels(images[0]) != pixels(images[1])
    assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None, "stop"}
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "A cat."}])
    assert text == whole.choices[0].message.content


def check_chat_refusals(client: OpenAI) -> None:
    def complete(content: Any, role: str = "user") -> Callable[[], Any]:
        messages: Any = [{"role": role, "content": content}]
        return lambda: client.chat.completions.create(model=MODEL, messages=messages)

    link = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/secret.png"}}]
    assert "nothing is fetched" in refused(400, "invalid_request", complete(link))
    refused(400, "invalid_request", complete([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]))
    refused(400, "invalid_request", complete([{"type": "input_audio", "input_audio": {}}]))
    refused(400, "invalid_request", complete("A cat.", "assistant"))
    refused(400, "context_length_exceeded", complete("cat " * 1500))


def check_responses(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="A cat.", tools=[TOOL], tool_choice=TOOL)
    assert first.status == "completed" and first.usage is not None and first.usage.output_tokens > 0
    calls: list[Any] = [item for item in first.output if item.type == "image_generation_call"]
    assert len(calls) == 1 and opened(calls[0].result).size == (32, 32) and calls[0].status == "completed"
    picture: Any = {"type": "input_image", "image_url": data_url(png()), "detail": "auto"}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": "A dog, too."}, picture]}]
    more = {"model": MODEL, "input": asked, "tool_choice": "required", "previous_response_id": first.id}
    second, again = client.responses.create(**more), client.responses.create(**more)
    results = [
        [item.result for item in answer.output if item.type == "image_generation_call"] for answer in (second, again)
    ]
    assert second.previous_response_id == first.id and results[0] == results[1] and len(results[0]) == 1
    assert client.responses.retrieve(second.id).output == second.output
    client.responses.delete(second.id)
    refused(404, "not_found", lambda: client.responses.retrieve(second.id))
    refused(404, "not_found", lambda: client.responses.create(**{**more, "previous_response_id": second.id}))


def check_response_known_by_its_id_alone(client: OpenAI) -> None:
    """Of a client that names no session, as after a restart of its program; one that names another one sees nothing."""
    first = named(client, "the-one-who-has-asked").responses.create(model=MODEL, input="A cat.", tool_choice="required")
    more: Any = {"model": MODEL, "input": "A dog, too.", "tool_choice": "required", "previous_response_id": first.id}
    second = named(client, "the-one-who-has-asked").responses.create(**more)
    assert client.responses.retrieve(first.id).output == first.output
    again = client.responses.create(**more)
    assert shown(again) == shown(second) and again.id.rpartition(".")[2] == "the-one-who-has-asked"
    assert "the-one-who-has-asked" not in second.output[0].model_dump_json() + str(second.output[-1].id)
    other = named(client, "somebody-who-was-never-here")
    refused(404, "not_found", lambda: other.responses.retrieve(first.id))
    assert "recipe" in refused(404, "not_found", lambda: other.responses.create(**more))
    for forged in (f"resp_{'x' * 32}.the-one-who-has-asked", f"{first.id}x", first.id.partition(".")[0], "resp_"):
        refused(
            404, "not_found", lambda forged=forged: client.responses.create(**{**more, "previous_response_id": forged})
        )
        refused(404, "not_found", lambda forged=forged: client.responses.retrieve(forged))
    client.responses.delete(first.id)


def check_response_from_its_recipe(client: OpenAI) -> None:
    """Where the one before is not known, as on another server: the same picture, read again from its parts."""
    picture: Any = {"type": "input_image", "image_url": data_url(png()), "detail": "auto"}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": "A cat."}, picture]}]
    first = client.responses.create(model=MODEL, input=asked, tool_choice="required", extra_body={"recipe": True})
    recipe = (first.model_extra or {})["recipe"]
    more: Any = {"model": MODEL, "input": "A dog.", "tool_choice": "required", "previous_response_id": first.id}
    second = client.responses.create(**more)
    assert "recipe" not in (second.model_extra or {})
    stranger = named(client, "somebody-who-was-never-here")
    again = stranger.responses.create(**more, extra_body={"recipe": recipe})
    assert shown(again) == shown(second) and len((again.model_extra or {})["recipe"]["turns"]) == 2
    wrong = {**recipe, "bundle": "0" * 64}
    refused(400, "invalid_request", lambda: stranger.responses.create(**more, extra_body={"recipe": wrong}))


def check_response_streamed(client: OpenAI) -> None:
    tool: Any = {**TOOL, "partial_images": 2, "size": "48x48"}
    events: list[Any] = list(client.responses.create(
        model=MODEL, input="A cat.", tools=[tool], tool_choice=TOOL, stream=True, max_output_tokens=0
    ))  # fmt: skip
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "image_generation_call.in_progress",
        "image_generation_call.generating", "image_generation_call.partial_image",
        "image_generation_call.partial_image", "image_generation_call.completed", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    partials = [event for event in events if event.type.endswith("partial_image")]
    assert [event.partial_image_index for event in partials] == [0, 1]
    assert all(opened(event.partial_image_b64).size == (48, 48) for event in partials)
    assert events[-1].response.output[0] == events[-2].item


def check_response_stream_helper(client: OpenAI) -> None:
    """The client's own accumulator, which is strict about the order of events."""
    with client.responses.stream(model=MODEL, input="A cat.", tools=[TOOL], tool_choice=TOOL) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds and final.output_text != ""
    assert [item.type for item in final.output] == ["message", "image_generation_call"]


def check_response_in_the_background(client: OpenAI) -> None:
    waiting = client.responses.create(model=MODEL, input="A cat.", background=True, tool_choice="required")
    assert waiting.status in ("queued", "in_progress")
    patience = time.monotonic() + 60
    while (now := client.responses.retrieve(waiting.id)).status != "completed" and time.monotonic() < patience:
        time.sleep(0.02)
    assert now.status == "completed" and now.output
    long: Any = {"background": True, "tool_choice": "required", "extra_body": {"steps": 50, "n": 10}}
    other = client.responses.create(
        model=MODEL, input="A cat.", background=True, tool_choice="required", extra_body=long
    )
    client.responses.cancel(other.id)
    while (now := client.responses.retrieve(other.id)).status != "cancelled" and time.monotonic() < patience:
        time.sleep(0.02)
    assert now.status == "cancelled" and not now.output


CHECKS = {name: check for name, check in list(globals().items()) if name.startswith("check_")}


def main(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    found = {"version": openai.__version__}
    for name, check in CHECKS.items():
        try:
            check(client)
            found[name] = ""
        except BaseException:  # noqa: BLE001 (each check says what it met; pytest's failure is no Exception)
            found[name] = traceback.format_exc()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
