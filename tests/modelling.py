"""The facts about models as they travel with the package."""

from __future__ import annotations

from serving import ROOT

from tornado_live.wire.models import load_models

MODELS_YAML = (ROOT / "config/models.yaml").read_text(encoding="utf-8")
MODELS = load_models(MODELS_YAML, "config/models.yaml")
