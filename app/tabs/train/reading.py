"""The section of the Train tab that says how a text is read: encoding, column, documents."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from lm.data.tables import PRUNED
from lm.errors import UserError, one_line

from ...jobs.queue import JobQueue
from ...jobs.reading import ENCODINGS, Reading
from ...jobs.settings import DEFAULT_DATASET, MAX_LENGTHS
from ...ui.errors import INTERNAL, as_sentence
from ...ui.i18n import localized, translate

# Settings of `lm train` in the order of the section's components, and what each is by default.
DEFAULTS = {
    "encoding": "",
    "encoding_errors": False,
    "text_column": "",
    "header": True,
    "json_field": "",
    "document_separator": "",
}
_LABELS = {
    "utf_8": "Unicode (utf_8)",
    "utf_16_le": "Unicode (utf_16_le)",
    "cp1252": "Western European (cp1252)",
    "mac_roman": "Western European, Macintosh (mac_roman)",
    "cp1250": "Central European (cp1250)",
    "cp1251": "Cyrillic (cp1251)",
    "koi8_r": "Cyrillic (koi8_r)",
    "cp1253": "Greek (cp1253)",
    "cp1254": "Turkish (cp1254)",
    "cp1255": "Hebrew (cp1255)",
    "cp1256": "Arabic (cp1256)",
    "cp1257": "Baltic (cp1257)",
    "cp1258": "Vietnamese (cp1258)",
    "cp874": "Thai (cp874)",
    "gb18030": "Chinese (gb18030)",
    "big5": "Traditional Chinese (big5)",
    "cp932": "Japanese (cp932)",
    "euc_jp": "Japanese (euc_jp)",
    "cp949": "Korean (cp949)",
}
_SHOWN = 40  # characters of a column's name and value


class ReadingSection:
    """The components of the section and their events."""

    def __init__(self, queue: JobQueue):
        self.queue = queue
        self.dataset = gr.State(DEFAULT_DATASET)  # that the components below are about
        name = localized("How the text is read")
        with gr.Accordion(name, open=False, elem_id="train-reading") as self.section:
            self.note = gr.HTML(elem_id="train-note", elem_classes="figures")
            self._lay_out()
        self.fields: list[Any] = [
            self.encoding,
            self.replace,
            self.column,
            self.header,
            self.json_field,
            self.separator,
        ]

    def _lay_out(self) -> None:
        self.encoding = gr.Dropdown(
            [(localized("Automatic"), ""), *((localized(_LABELS[name]), name) for name in ENCODINGS)],
            value="",
            label=localized("Encoding"),
            info=localized("Choose one, or type any encoding that Python knows."),
            allow_custom_value=True,
            elem_id="train-encoding",
        )
        self.replace = gr.Checkbox(label=localized("Replace damaged characters"), elem_id="train-replace")
        self.column = gr.Dropdown(
            [(localized("Automatic"), "")],
            value="",
            label=localized("Text column"),
            info=localized("Choose one, or type a name such as translation.en."),
            allow_custom_value=True,
            visible=False,
            elem_id="train-column",
        )
        self.header = gr.Checkbox(
            True, label=localized("The first row names the columns"), visible=False, elem_id="train-header"
        )
        self.json_field = gr.Textbox(
            "",
            label=localized("List of rows"),
            info=localized("The field of the file that contains it, such as data. Leave empty to find it."),
            max_length=MAX_LENGTHS["json_field"],
            visible=False,
            elem_id="train-json-field",
        )
        separators = [
            (localized("None: each file is one document"), ""),
            (localized("Blank lines"), "blank-line"),
            (localized("Every line is a document"), "line"),
        ]
        self.separator = gr.Dropdown(
            separators,
            value="",
            label=localized("Between documents"),
            info=localized("Choose what separates them, or type it, such as <|endoftext|> or \\n###\\n."),
            allow_custom_value=True,
            elem_id="train-separator",
        )

    @property
    def inputs(self) -> list[Any]:
        """The components whose values `settings_of` takes."""
        return [self.dataset, *self.fields]

    def wire(self, text: gr.Dropdown, hub: gr.Textbox, stored: list[Any]) -> None:
        """Read the text whenever another one is chosen or `stored`, or it is to be read in another way."""
        choice = [text, hub, self.dataset]
        for event in stored:
            event.success(self.on_text, choice, self.inputs, **INTERNAL)
        gr.on([text.input, hub.submit, hub.blur], self.on_text, choice, self.inputs, **INTERNAL)
        gr.on(
            [self.dataset.change, *(field.input for field in self.fields)],
            self.on_change,
            self.inputs,
            [self.note, self.section, *self.fields],
            trigger_mode="always_last",
            concurrency_limit=2,
            **INTERNAL,
        )

    def on_text(self, text: str, hub: str, known: str) -> Any:
        """Another text may have been chosen: it is read with the defaults."""
        dataset = dataset_of(text, hub)
        return gr.skip() if dataset == known else [dataset, *DEFAULTS.values()]

    def on_change(self, dataset: str, *values: Any) -> list[Any]:
        """Read the text, which may take a while, and offer what there is to choose."""
        try:
            found = self.queue.read({"dataset": dataset, **settings_of(dataset, dataset, *values)})
        except UserError as error:  # next to the fields, where it covers no button
            return [warning(str(error)), gr.Accordion(open=True), *[gr.skip()] * len(self.fields)]
        section = gr.Accordion(open=True) if found.error else gr.skip()
        return [warning(found.error), section, *_components(found)]


def dataset_of(text: str, hub: str) -> str:
    """The dataset that is chosen in the form."""
    return hub.strip() or text or DEFAULT_DATASET


def settings_of(dataset: str, known: str, *values: Any) -> dict[str, Any]:
    """The values of the section's components as app/jobs/settings.py takes them; none if they are about
    another text."""
    settings = dict(zip(DEFAULTS, values, strict=True))
    settings["encoding_errors"] = "replace" if settings["encoding_errors"] else "strict"
    return settings if dataset == known else {}


def reading_rows(settings: Mapping[str, Any]) -> dict[str, str]:
    """What was chosen in the section, by the labels of its components."""
    rows = {
        translate("Encoding"): settings.get("encoding"),
        translate("Text column"): settings.get("text_column"),
        translate("List of rows"): settings.get("json_field"),
        translate("Between documents"): settings.get("document_separator"),
    }
    return {label: value for label, value in rows.items() if isinstance(value, str) and value}


def warning(line: str) -> str:
    """A warning as HTML; nothing for an empty line."""
    return f'<p class="warning">{escape(as_sentence(line))}</p>' if line else ""


def _components(found: Reading) -> list[Any]:
    """Changes of the components: the columns to choose from, and what this kind of text needs is visible. The
    values stay: the user may have changed them in the meantime."""
    kind, unknown = found.kind, not found.kind
    automatic = translate("Automatic")
    automatic = f"{automatic}: {one_line(found.column, _SHOWN)}" if found.column else automatic
    columns = [(f"{one_line(name, _SHOWN)} · {example}", name) for name, example in found.columns.items()]
    columns = [(label, name) for label, name in columns if name and len(name) <= MAX_LENGTHS["text_column"]]
    encodings = [("Automatic", ""), *((_LABELS[name], name) for name in ENCODINGS)]
    # Those that can read the text come first, each with a line that shows whether it is the right one.
    encodings.sort(key=lambda choice: bool(choice[1]) and choice[1] not in found.encodings)
    return [
        gr.Dropdown(
            [(_encoding(*choice, found), choice[1]) for choice in encodings], visible=kind not in PRUNED
        ),
        gr.Checkbox(visible=kind not in PRUNED),
        gr.Dropdown([(automatic, ""), *columns], visible=kind != "text"),
        gr.Checkbox(visible=unknown or kind == "csv"),
        gr.Textbox(visible=unknown or kind == "json"),
        gr.Dropdown(visible=unknown or kind == "text"),
    ]


def _encoding(label: str, name: str, found: Reading) -> str:
    line = found.encodings.get(name)
    return f"{translate(label)} · {line}" if line else translate(label)
