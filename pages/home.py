"""Home: what needs me now."""

from __future__ import annotations

from app.session import require
from app.widgets import page_title

require("clinician", "product", "engineer")
page_title("common.page_home")
