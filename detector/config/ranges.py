"""The types of config values, with their ranges: no value that is accepted overflows later."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from detector.config.duration import parse_duration

# Far above any use, far below what float32 and int64 hold, products included
LARGEST = 1e9
LARGEST_COUNT = 1_000_000_000
LARGEST_PIXELS = 16_384  # width and height: an image of that size has 800 MB

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
ImageSize = Annotated[int, Field(ge=1, le=LARGEST_PIXELS)]
CountOrAuto = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[Literal["auto"], Tag("<word>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>"),
]
FlagOrAuto = Annotated[
    Annotated[bool, Tag("<flag>")] | Annotated[Literal["auto"], Tag("<word>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<flag>"),
]
Pixels = Annotated[float, Field(ge=0.01, le=LARGEST_PIXELS)]


def _duration(text: str) -> str:
    parse_duration(text)  # raises if it is not a duration
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Anchor = tuple[Pixels, Pixels]
