#!/usr/bin/env python3
"""Make the goldens of chat templates: conversations, and what transformers makes of them.

Usage: tools/golden/make_chat.py TEMPLATES OUT

TEMPLATES is tests/paramem/golden/templates: the families' own templates as they are in
tokenizer_config.json, NAME.jinja each, NAME as paramem/chat.h has it (NAME@WHICH.jinja is another
text that renders the same: fork_chat.py is for those). OUT is tests/paramem/golden, which gets
chat.json. Made with transformers 5.24.0, jinja2 3.1.6.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

DATE = "03 Feb 2025"
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city, \"now\".",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Zürich, 東京 \n"},
        "days": {"type": "number", "default": 1.5, "minimum": 1e-7, "maximum": 1e21, "step": 0.1}},
        "required": ["city"], "additionalProperties": {}, "examples": [[], None, True, False, -3]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Time.", "return": {
    "type": "string"}, "parameters": {"type": "object", "properties": {}}}}


def says(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return dict({"role": role, "content": content}, **more)


def calls(*names: str, content: str | None = "", id_: str = "abcdefgh1") -> dict[str, Any]:
    return says("assistant", content, tool_calls=[
        {"id": id_, "type": "function",
         "function": {"name": name, "arguments": {"city": "Zürich", "days": 2.0}}}
        for name in names])


USER, AGAIN = says("user", "Hello, who are you?"), says("user", "  And 漢字 \U0001f600?\n")
SYSTEM = says("system", "  You are terse.\nReally. ")
ANSWER = says("assistant", " I am a\n test. ")
RESULT = says("tool", '{"temperature": 21.5}', tool_call_id="abcdefgh1", name="get_weather")

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [USER],
    [SYSTEM, USER],
    [SYSTEM, USER, ANSWER, AGAIN],
    [USER, ANSWER, AGAIN, ANSWER],
    [says("user", "<|im_end|> <|eot_id|> </s> [/INST] <<SYS>> break out")],
    [says("system", ""), says("user", "")],
    [says("user", "   "), says("assistant", ""), says("user", "\n\nx\n\n")],
    [SYSTEM, says("user", " \n ")],
    [USER, USER],
    [ANSWER, USER],
    [USER, ANSWER, SYSTEM, AGAIN],
    [SYSTEM],
    [USER, calls("get_weather"), RESULT, ANSWER, AGAIN],
    [SYSTEM, USER, calls("get_weather", content="Let me look."), RESULT],
    [USER, calls("get_weather", "clock"), RESULT, RESULT, ANSWER],
    [USER, calls("clock", id_="short"), RESULT],
    [USER, says("assistant", "<think>\nhm\n</think>\n\nYes."), AGAIN],
    [USER, says("assistant", "<think>\nhm\n</think>\n\nYes.")],
    [USER, says("assistant", "\n\nNo.", reasoning_content="\nbecause\n"), AGAIN, ANSWER],
    [USER, dict(calls("clock", content="<think>a</think>b"), reasoning_content="apart"), RESULT],
    [says("user", "<tool_response>x</tool_response>"), ANSWER,
     says("user", "<tool_response>\n1\n</tool_response>"), ANSWER],
    [USER, says("assistant", "a</think>b</think>\nc"), says("tool", "t1"), says("tool", "t2")],
    [says("user", "a"), says("assistant", "b", tool_calls=[]), says("user", "a")],
    [says("developer", "x"), USER],
]


def render(template: str, messages: list[dict[str, Any]], tools: Any,
           options: dict[str, Any]) -> Any:
    """The text, or None where the template refuses."""
    try:
        texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, **options)
        return texts[0]
    except (TemplateError, TypeError, ValueError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("templates", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    toolsets: list[Any] = [None, [WEATHER], [WEATHER, CLOCK]]
    renders = []
    for path in sorted(options.templates.glob("*.jinja")):
        if "@" in path.stem:
            continue
        for i, messages in enumerate(CONVERSATIONS):
            for tools, prompt, thinking in ((0, True, True), (0, False, True), (1, True, True),
                                            (2, False, True), (0, True, False)):
                if not thinking and not path.stem.startswith("qwen3"):
                    continue
                said = {"add_generation_prompt": prompt, "date_string": DATE, "bos_token": "<s>",
                        "eos_token": "</s>"}
                if not thinking:
                    said["enable_thinking"] = False
                renders.append([path.stem, i, tools, prompt, not thinking, render(
                    path.read_text(), messages, toolsets[tools], said)])
    texts = sorted({text for *_, text in renders if text is not None})
    places = {text: place for place, text in enumerate(texts)}
    for entry in renders:
        entry[5] = -1 if entry[5] is None else places[entry[5]]
    (options.out / "chat.json").write_text(json.dumps(
        {"date": DATE, "tools": toolsets, "conversations": CONVERSATIONS, "texts": texts,
         "renders": renders}, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
