"""The templates of the pages, and how they write values."""

from __future__ import annotations

import time
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from s11_fastai.report import facts
from s11_fastai.streams import printable


@lru_cache(maxsize=2)
def template(name: str) -> Template:
    """One of `templates/`, by the name of its file; what is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("s11_fastai", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Paths are what may hold any letters.
    environment.filters["printable"] = lambda value: printable(str(value))
    environment.filters["percent"] = lambda fraction: f"{fraction:.2%}"
    environment.filters["time"] = _time_element
    environment.globals["weights_in_words"] = facts.weights_in_words
    return environment.get_template(name)


def _time_element(seconds: float) -> Markup:
    """A time as HTML, which `page.js` shows by the reader's clock."""
    at = time.gmtime(seconds)
    machine, person = (time.strftime(form, at) for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M"))
    return Markup('<time datetime="{}">{} UTC</time>').format(machine, person)
