"""The few forms that nearly every query of a dashboard has."""

WINDOW = "[$__rate_interval]"
FAILED = 'status=~"INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'
"""What the server could not do. The alerting rules count the same; a caller's faults are none of these."""
COUNTED = 'status=~"OK|INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events a second, summed up."""
    return f"{_sum(by)}(rate({metric}{_braces(where)}{WINDOW}))"


def mean(histogram: str, by: str = "", where: str = "") -> str:
    """The mean of what a histogram observed."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """So large is what this share of the observations stays below."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def by_bucket(histogram: str, where: str = "") -> str:
    """How many observations each bucket got, for a heat map."""
    return f"sum by (le) (increase({histogram}_bucket{_braces(where)}{WINDOW}))"


def failed_share(by: str = "", where: str = "") -> str:
    """Failed requests by those that count; 0, not nothing, where none failed."""
    comma = ", " if where else ""
    failed = rate("weir_requests_total", by, f"{where}{comma}{FAILED}")
    counted = rate("weir_requests_total", by, f"{where}{comma}{COUNTED}")
    return f"({failed} or 0 * {counted}) / {counted}"


def wasted_share(by: str = "", where: str = "") -> str:
    """Computed entries that only fill rows up."""
    real = rate("weir_input_tokens_total", by, where)
    return f"1 - {real} / {rate('weir_padded_tokens_total', by, where)}"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum "


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""
