"""Prices of one model's requests: given, published or learnt."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from foveal.core.vision_cost import NO_VISION, VisionCost
from foveal.gateway.config.models import PricingConfig
from foveal.gateway.pricing.learnt_images import LearntImages
from foveal.gateway.pricing.output_tokens import OutputTokens
from foveal.gateway.pricing.price import Price
from foveal.gateway.pricing.published import PublishedCosts
from foveal.gateway.pricing.rates import CalibratedRates, CostRates, LearntRates, Timing
from foveal.gateway.pricing.rules.registry import make_rule
from foveal.gateway.pricing.rules.rule import VisionWork
from foveal.gateway.pricing.text_tokens import TextTokens
from foveal.gateway.pricing.vision_pricing import VisionPricing
from foveal.gateway.request.view import ImageRef, RequestView

__all__ = ["ModelPricer", "Settlement"]

_LEAST_COST_MS = 0.1
_TEXT_SEEN = 3
# Once text is known, one answer in seven keeps it up to date: an update costs more than a price.
_TEXT_TAUGHT = 100
_TEXT_EVERY = 7
_CHECKED_REQUESTS = 8
_REFUTED_AT = 0.25


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an answer really took, from its usage."""

    prompt_tokens: int
    output_tokens: int
    """Over all choices."""
    image_tokens: int | None = None
    """If the backend tells (usage.prompt_tokens_details.multimodal_tokens.image)."""
    cached_tokens: int = 0
    timing: Timing | None = None


class ModelPricer:
    def __init__(self, config: PricingConfig) -> None:
        """Raises ConfigurationError for an unknown family or a latency file that cannot be read."""
        self._config = config
        self._given_rule = config.family != "auto"
        self._vision: VisionPricing | None = None
        if self._given_rule:
            self._vision = VisionPricing(make_rule(config.family, config.family_options))
        self._is_guess = False
        self._errors: deque[float] = deque(maxlen=_CHECKED_REQUESTS)
        self._refuted = False
        self._learnt_rates = LearntRates(
            config.encode_ms_per_token, config.prefill_ms_per_token, config.decode_ms_per_token
        )
        self._rates: CostRates = self._learnt_rates
        if config.latency_model is not None:
            self._rates = CalibratedRates.of_file(config.latency_model)
        self._kv_bytes = config.kv_bytes_per_token or 0
        self._text = TextTokens()
        self._text_answers = 0
        self._images = LearntImages()
        self._output = OutputTokens(config.default_output_tokens)

    def publish(self, costs: PublishedCosts) -> None:
        """Take what a backend tells. The operator's word stands above it."""
        if not self._given_rule and costs.vision is not None and not (costs.is_guess and self._refuted):
            self._vision, self._is_guess = costs.vision, costs.is_guess
        if costs.rates is not None and self._config.latency_model is None and not self._has_given_rates:
            self._rates = costs.rates
        if costs.kv_bytes_per_token is not None and self._config.kv_bytes_per_token is None:
            self._kv_bytes = costs.kv_bytes_per_token

    @property
    def _has_given_rates(self) -> bool:
        config = self._config
        given = (config.encode_ms_per_token, config.prefill_ms_per_token, config.decode_ms_per_token)
        return any(rate is not None for rate in given)

    def price(self, view: RequestView) -> Price:
        """Pure arithmetic, some microseconds."""
        works = [self._work(image) for image in view.images]
        text_tokens = self._text.estimate(view.num_messages, view.text_chars) + view.prompt_ids
        markers = sum(work.marker_tokens for work in works)
        vision = NO_VISION
        if works:
            tokens = sum(work.num_tokens for work in works)
            vision = VisionCost(tokens, self._rates.encode_ms(works), tokens * self._kv_bytes)
        prompt_tokens = text_tokens + markers + vision.num_tokens
        output_tokens = self._output.estimate(view.max_tokens) * view.num_choices
        cost_ms = (
            vision.encode_ms
            + self._rates.prefill_ms(prompt_tokens)
            + self._rates.decode_ms(prompt_tokens, output_tokens)
        )
        return Price(prompt_tokens, output_tokens, max(_LEAST_COST_MS, cost_ms), vision)

    def _work(self, image: ImageRef) -> VisionWork:
        if self._vision is not None and image.width > 0:
            return self._vision.work(image.width, image.height, image.detail)
        tokens = self._images.estimate(image.width, image.height, image.detail)
        return VisionWork(tokens, 0, tokens)

    def settle(self, view: RequestView, found: Settlement) -> None:
        """Learn from a complete answer."""
        if found.prompt_tokens <= 0:
            return
        works = [self._work(image) for image in view.images]
        if not works:
            self._text_answers += 1
            is_wanted = self._text.seen < _TEXT_TAUGHT or self._text_answers % _TEXT_EVERY == 0
            if is_wanted and view.prompt_ids == 0:
                self._text.learn(view.num_messages, view.text_chars, found.prompt_tokens)
        else:
            self._learn_images(view, works, found)
        per_choice = found.output_tokens / max(1, view.num_choices)
        self._output.learn(per_choice, view.max_tokens)
        if found.timing is not None:
            vision_tokens = sum(work.num_tokens for work in works)
            self._learnt_rates.learn(
                found.timing, found.prompt_tokens, found.cached_tokens, vision_tokens, round(per_choice)
            )

    def _learn_images(self, view: RequestView, works: Sequence[VisionWork], found: Settlement) -> None:
        predicted = sum(work.num_tokens for work in works)
        markers = sum(work.marker_tokens for work in works)
        text = self._text.estimate(view.num_messages, view.text_chars)
        if found.image_tokens is not None:
            counted = float(found.image_tokens)
            self._text.learn(view.num_messages, view.text_chars, round(found.prompt_tokens - counted - markers))
        elif self._text.seen >= _TEXT_SEEN or text * 8 < found.prompt_tokens:
            counted = max(0.0, float(found.prompt_tokens - text - markers))
        else:
            return  # text and images cannot be told apart yet
        share = counted / predicted if predicted else 0.0
        for image, work in zip(view.images, works, strict=True):
            self._images.learn(image.width, image.height, image.detail, work.num_tokens * share)
        if self._vision is not None and all(image.width for image in view.images) and counted:
            self._errors.append(abs(predicted / counted - 1.0))
            self._judge_guess()

    def _judge_guess(self) -> None:
        """A rule that only the checkpoint's name suggested gives way to what usage says."""
        if self._is_guess and len(self._errors) == _CHECKED_REQUESTS and statistics.median(self._errors) > _REFUTED_AT:
            self._vision, self._is_guess, self._refuted = None, False, True
