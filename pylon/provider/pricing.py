"""What a job costs, in msats: a base and tokens in and out, per model where the table says so.

Pure. Prices are asked before the work, so output is counted at its upper bound, `max_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pylon.units import round_up_to_sats

TOKENS_PER_PRICE = 1000


@dataclass(frozen=True, slots=True)
class Rate:
    """Msats for a job, and for each 1,000 tokens of prompt and of answer."""

    base_msats: int
    input_msats_per_1k: int
    output_msats_per_1k: int
    min_msats: int

    def price(self, prompt_tokens: int, max_tokens: int, whole_sats: bool) -> int:
        """Msats for one job, rounded up; never under the minimum."""
        tokens = prompt_tokens * self.input_msats_per_1k + max_tokens * self.output_msats_per_1k
        msats = max(self.min_msats, self.base_msats - (-tokens // TOKENS_PER_PRICE))
        return round_up_to_sats(msats) if whole_sats else msats


def rate_for(config: Any, model: str) -> Rate:
    """The rate of one model: `[pricing.models.NAME]` where there is one, else `[pricing]`."""
    terms = config.pricing.models.get(model, config.pricing)
    return Rate(terms.base_msats, terms.input_msats_per_1k, terms.output_msats_per_1k,
                config.min_price_msats)
