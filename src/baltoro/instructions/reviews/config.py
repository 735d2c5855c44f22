"""Settings of ``instructions.reviews``."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from baltoro.core.config import StrictModel, execution, result, section
from baltoro.papers.config import InputFormat, MetadataTableConfig, ReadLimits

ReviewLayout = Literal["auto", "peerread", "asap", "openreview", "jats", "flat"]
"""How review files are laid out; ``auto`` looks at each record."""


class JoinConfig(StrictModel):
    """Which reviews belong to which paper: file stem, metadata column and title, tried in that order."""

    metadata_column: str | None = result(
        None,
        "a column of papers_metadata that holds the key of a paper's reviews (a forum id); empty "
        "skips this try",
        min_length=1,
    )
    min_fraction: float = result(
        0.5,
        "part of the smaller side (papers or reviewed papers) that must find its partner; below it the build "
        "stops, as the keys are probably of different kinds",
        ge=0,
        le=1,
    )


class RulesConfig(StrictModel):
    """Which single reviews are dropped before merging; an empty bound is off."""

    rounds: Literal["all", "first"] = result("all", "reviews of all rounds, or of the first submission only")
    min_words: int | None = result(30, "words below which a review is dropped", ge=1)
    max_words: int | None = result(
        1500, "words above which a review is dropped (AcademicGPT: 2,000 tokens)", ge=1
    )
    min_characters: int | None = result(None, "characters below which a review is dropped", ge=1)
    max_characters: int | None = result(None, "characters above which a review is dropped", ge=1)
    max_line_breaks: int | None = result(
        200, "line breaks (blank lines not counted) above which a review is dropped as broken layout", ge=1
    )
    drop_unsure_disagreement: bool = result(
        False, "drop a review that disagrees with the decision and has low confidence (AcademicGPT)"
    )
    low_confidence: float = result(2, "a confidence of at most this is low (scales are mostly 1 to 5)", ge=0)
    accept_from_rating: float = result(
        6, "a rating of at least this is for acceptance (6 of 10 at ICLR and NeurIPS; 4 of 6 elsewhere)"
    )

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        for name in ("words", "characters"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"min_{name} {low} is above max_{name} {high}, so no review would stay; lower min_{name}"
                )
        return self


class ExtractiveConfig(StrictModel):
    """The merger that copies points out of the reviews."""

    max_points: int = result(8, "points kept per aspect; those that several referees raise come first", ge=1)
    min_point_words: int = result(4, "words below which a point says too little", ge=1)
    max_point_words: int = result(90, "words above which a point is cut after its last whole sentence", ge=8)
    same_point_overlap: float = result(
        0.6, "shared part of the content words from which two points are one (Jaccard)", gt=0, le=1
    )

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        if self.min_point_words > self.max_point_words:
            raise ValueError(
                f"min_point_words {self.min_point_words} is above max_point_words {self.max_point_words}, "
                "so no point would stay; lower min_point_words"
            )
        return self


class EndpointConfig(StrictModel):
    """Any server that speaks the OpenAI chat completions protocol with JSON mode.

    Limits hold for each endpoint (a URL with its key). Keys are never written into a recipe: it names
    environment variables.
    """

    urls: tuple[str, ...] = execution(
        (), "base URLs, as http://host:8000/v1; several are used in turn, and one that fails is set aside"
    )
    api_key_environment: tuple[str, ...] = execution(
        (),
        "names of the environment variables with the keys: one for all URLs, one per URL, or several for one "
        "URL; empty sends none",
    )
    model: str = result("", "the model's name at the endpoint")
    temperature: float = result(0.0, "sampling temperature", ge=0, le=2)
    max_answer_tokens: int = result(1536, "most tokens of one answer", ge=64)
    json_mode: bool = result(True, "ask for JSON by response_format; off for servers without it")
    seed: int | None = result(None, "seed sent with each request, for servers that know one")
    max_review_tokens: int = result(
        12_000, "most tokens of reviews in one request; the longest reviews are cut at paragraphs", ge=256
    )
    repair_tries: int = result(2, "how often an answer of the wrong form is sent back to be corrected", ge=0)
    concurrency: int = execution(8, "requests under way at a time", ge=1)
    deadline_seconds: float = execution(180.0, "a request without its whole answer by then is given up", gt=0)
    max_retries: int = execution(6, "further tries after 429, 5xx, a lost connection or the deadline", ge=0)
    backoff_seconds: float = execution(1.0, "wait before the first retry; doubles, with jitter", gt=0)
    max_backoff_seconds: float = execution(60.0, "longest wait between retries", gt=0)
    requests_per_minute: int | None = execution(None, "requests a minute of one endpoint", ge=1)
    tokens_per_minute: int | None = execution(None, "tokens (in and out) a minute of one endpoint", ge=1)
    requests_per_day: int | None = execution(None, "requests in 24 hours of one endpoint", ge=1)
    tokens_per_day: int | None = execution(None, "tokens (in and out) in 24 hours of one endpoint", ge=1)
    set_aside_after: int = execution(4, "failures in a row after which an endpoint rests for a while", ge=1)
    stop_after_papers: int = execution(
        5,
        "papers in a row without an answer that can be used (none, a refusal, the wrong form) before the run "
        "stops with what it has",
        ge=1,
    )
    max_failed_fraction: float = result(
        0.01,
        "part of the papers that may stay without an answer that can be used after all tries (they become "
        "rejects); above it the run stops with what it has",
        ge=0,
        le=1,
    )
    ask_again: bool = execution(
        False,
        "ask and pay anew for papers whose saved answers are all of the wrong form; where none of these is "
        "from one of the urls, they are asked for anew anyway",
    )
    price_per_million_input_tokens: float = execution(0.0, "price, in any one currency", ge=0)
    price_per_million_output_tokens: float = execution(0.0, "price, in the same currency", ge=0)
    expected_answer_tokens: int = execution(500, "tokens of a usual answer, for the estimate", ge=1)
    expected_answer_seconds: float = execution(10.0, "time a usual answer takes, for the estimate", gt=0)

    @property
    def priced(self) -> bool:
        """Whether any price is set."""
        return self.price_per_million_input_tokens > 0 or self.price_per_million_output_tokens > 0

    @property
    def limited(self) -> bool:
        """Whether any budget is set."""
        limits = (
            self.requests_per_minute,
            self.tokens_per_minute,
            self.requests_per_day,
            self.tokens_per_day,
        )
        return any(limit is not None for limit in limits)

    @field_validator("urls")
    @classmethod
    def _urls_without_secrets(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for number, url in enumerate(urls):
            parts = urlsplit(url)
            if "@" in parts.netloc or parts.query:
                raise ValueError(
                    f"urls.{number} must not carry a user, password or query; put the key into an "
                    "environment variable and name it in api_key_environment"
                )
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"urls.{number} is {url!r}; give http://HOST[:PORT]/v1 or https://…")
        return urls

    @model_validator(mode="after")
    def _keys_fit_urls(self) -> Self:
        keys, urls = len(self.api_key_environment), len(self.urls)
        if keys > 1 and urls > 1 and keys != urls:
            raise ValueError(
                f"api_key_environment names {keys} variables for {urls} urls; name one for all, one per url, "
                "or several for a single url"
            )
        named = self.urls if keys < 2 else self.api_key_environment
        lanes = list(zip(self.urls, named, strict=True)) if urls > 1 else list(named)
        if len(set(lanes)) < len(lanes):
            raise ValueError(
                "urls and api_key_environment name one url with one key twice, whose limits would count "
                "twice; name it once"
            )
        return self


class LongTailConfig(StrictModel):
    """Which examples are too short or too long to learn from (the July recipe drops three in ten so).

    Quantiles are taken over the examples of the set; a bound and a quantile may both be given, the stricter
    one holds.
    """

    min_input_tokens: int | None = result(1000, "papers shorter than this are dropped", ge=1)
    min_response_tokens: int | None = result(64, "merged reviews shorter than this are dropped", ge=1)
    max_response_tokens: int | None = result(None, "merged reviews longer than this are dropped", ge=1)
    input_low_quantile: float = result(0.0, "this part of the shortest papers is dropped", ge=0, lt=0.5)
    response_low_quantile: float = result(0.0, "this part of the shortest reviews is dropped", ge=0, lt=0.5)
    response_high_quantile: float = result(1.0, "reviews above this quantile are dropped", gt=0.5, le=1)


class ReviewsConfig(StrictModel):
    """Papers and their peer reviews in; one example per paper out."""

    papers: str = execution(
        ..., "folder or file of parsed papers: a path, file:// or s3:// URI", min_length=1
    )
    papers_format: InputFormat = result("auto", "format of the papers; auto looks at each file")
    papers_metadata: MetadataTableConfig | None = section(
        lambda: None, "a table with further columns of the papers (a forum id)"
    )
    reviews: str | None = execution(
        None, "folder or file of reviews; empty takes those published inside the papers' files", min_length=1
    )
    reviews_format: ReviewLayout = result("auto", "layout of the reviews; auto looks at each record")
    limits: ReadLimits = section(ReadLimits, "sizes beyond which a file or record is rejected")
    join: JoinConfig = section(JoinConfig, "how papers and reviews find each other")
    rules: RulesConfig = section(RulesConfig, "which single reviews are dropped")
    merger: Literal["extractive", "endpoint"] = result(
        "extractive", "who merges a paper's reviews: rules that copy, or a language model behind an endpoint"
    )
    extractive: ExtractiveConfig = section(ExtractiveConfig, "settings of the extractive merger")
    endpoint: EndpointConfig = section(EndpointConfig, "settings of the endpoint merger")
    cutoff_tokens: int = result(
        12_288, "most tokens of an example, template included (the July recipe: 11,264 or 12,288)", ge=512
    )
    response_room_tokens: int = result(
        1280, "tokens that the prompt leaves free for the response, in training and in serving alike", ge=64
    )
    template_room_tokens: int = result(
        96, "tokens left free for what the template or chat format adds around the turns", ge=0
    )
    long_tail: LongTailConfig = section(LongTailConfig, "which examples are too short or too long")
    histogram_bin_tokens: int = execution(512, "width of a bar of the length histogram", ge=1)

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> Self:
        if self.merger == "endpoint":
            for name in ("urls", "model"):
                if not getattr(self.endpoint, name):
                    raise ValueError(
                        f"endpoint.{name} is empty, but merger is endpoint; name it, or set merger to "
                        "extractive"
                    )
        return self

    @model_validator(mode="after")
    def _room_is_left(self) -> Self:
        room = self.response_room_tokens + self.template_room_tokens
        if self.cutoff_tokens < room + 256:
            raise ValueError(
                f"cutoff_tokens {self.cutoff_tokens} leaves fewer than 256 tokens for the prompt beside "
                f"response_room_tokens and template_room_tokens ({room} together); raise it or lower those"
            )
        return self
